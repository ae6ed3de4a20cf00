"""Report: what people look at. It reads plan, ledgers and names; of data, sizes alone.

May use: base, samples, config, shards, runs, history, dataset.

    status       one look at a run, as numbers
    summary      the same in words, and what somebody should look at
    timeline     throughput over time
    watch        the live view
    page         the page of `status --html`
    pagestyle    its head
    charts       pieces of SVG
    gantt        shards over tasks
    codes        codebook use
    card/        what a dataset is, for those who get it
    tails        the ends of the logs that matter
    log_lines    lines of logs that may be shown, and the one that says what went wrong
    preview      originals beside decoded pictures
"""
