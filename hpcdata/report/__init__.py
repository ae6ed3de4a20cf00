"""Report: what people look at. It reads plan, ledgers and names, and no data.

May use: base, samples, shards, runs, history, dataset.

    status       one look at a run, as numbers
    summary      the same in words, and what somebody should look at
    timeline     throughput over time
    watch        the live view
    page         the page of `status --html`
    pagestyle    its head
    charts       pieces of SVG
    gantt        shards over tasks
    codes        codebook use
    tails        the ends of the logs that matter
    preview      originals beside decoded pictures
"""
