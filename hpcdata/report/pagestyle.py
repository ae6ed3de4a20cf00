"""The head of the report page: style for light and dark, and a policy that lets the browser fetch and run nothing."""

from __future__ import annotations

HEAD = """\
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root {
  --page: #f4f5f7; --card: #ffffff; --ink: #1c2128; --soft: #5b6573; --line: #dfe3e8; --idle: #c3cad3;
  --blue: #2f6fdb; --other: #5c8fe6; --pale: #9dbdf2; --green: #1f8a4c; --amber: #d97a06;
  --red: #cf2c36; --violet: #7a53c9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1d2127; --ink: #e6e9ed; --soft: #9aa5b1; --line: #343b44; --idle: #4b545f;
    --blue: #5b93f0; --other: #3f76d6; --pale: #35588f; --green: #3fb56f; --amber: #f0a030;
    --red: #f0606a; --violet: #a585ec;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 20px 16px 40px; }
h1 { font-size: 22px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 0 0 10px; }
h3 { font-size: 14px; margin: 10px 0 5px; font-weight: 600; }
p { margin: 6px 0; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
section { margin: 14px 0; }
.soft, footer, header p { color: var(--soft); font-size: 13px; }
.note { border-left: 4px solid var(--amber); background: var(--card); padding: 8px 12px; white-space: pre-wrap; }
.badge { color: #fff; border-radius: 4px; padding: 1px 8px; font-weight: 600; }
.badge.finished { background: #1f8a4c; }
.badge.unfinished { background: #2f6fdb; }
.badge.stopped, .badge.failed { background: #cf2c36; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px; margin-bottom: 12px; }
.figure { font-size: 25px; font-weight: 650; line-height: 1.25; }
.bar { display: flex; height: 8px; background: var(--line); border-radius: 4px; overflow: hidden; }
.bar.tall { height: 20px; gap: 1px; }
.good { background: var(--green); } .bad { background: var(--red); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
svg { width: 100%; height: auto; display: block; }
svg text { font-size: 11.5px; fill: var(--soft); font-family: inherit; }
.grid { stroke: var(--line); stroke-width: 1; }
.area { fill: var(--blue); fill-opacity: 0.75; }
.curve { stroke: var(--blue); stroke-width: 2; fill: none; }
.even { stroke: var(--soft); stroke-dasharray: 5 4; fill: none; }
.done { fill: var(--blue); } .part { fill: var(--pale); } .done.odd { fill: var(--other); } .idle { fill: var(--idle); }
.level1 { fill-opacity: 0.25; } .level2 { fill-opacity: 0.5; } .level3 { fill-opacity: 0.75; }
.mark { stroke: var(--card); stroke-width: 0.8; }
.preempted { fill: var(--amber); } .failed { fill: var(--violet); }
.vanished { fill: var(--red); } .mark.vanished { stroke: var(--red); stroke-width: 2; fill: none; }
.key.done { background: var(--blue); } .key.idle { background: var(--idle); }
.key.preempted { background: var(--amber); }
.key.vanished { background: var(--red); } .key.failed { background: var(--violet); }
.time-useful, .time-encode { background: var(--blue); } .time-lost { background: var(--red); }
.time-overhead, .time-other { background: var(--idle); } .time-read { background: var(--violet); }
.time-decode { background: var(--amber); } .time-write { background: var(--green); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; font-size: 13px; text-align: left; }
th, td { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td:has(.bar), th.wide { width: 45%; }
footer { margin-top: 18px; }
</style>
"""
