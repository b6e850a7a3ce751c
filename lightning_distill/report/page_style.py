"""How a page looks: on wide and narrow screens, on light and dark ones."""

from .curve_panels import STYLE as CURVES

# Colours of the system, which are dark where the reader's are, and three for models that can be
# told apart on both grounds, also by most who see few colours (Okabe and Ito, 2008).
STYLE = (
    """
:root { color-scheme: light dark; --c0: #0072b2; --c1: #d55e00; --c2: #008f68; }
@media (prefers-color-scheme: dark) { :root { --c0: #56b4e9; --c1: #f0a35e; --c2: #3fcf9f; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 0 auto; padding: 1rem;
  background: Canvas; color: CanvasText; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .2rem; }
.from, .why { color: color-mix(in srgb, CanvasText 65%, Canvas); font-size: .85rem; }
.from { margin: 0 0 .6rem; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; }
.cards div { flex: 1 1 8.5rem; padding: .6rem .8rem; border-radius: 6px;
  background: color-mix(in srgb, CanvasText 6%, Canvas); }
.cards b { display: block; font-size: 1.35rem; }
.wide { overflow-x: auto; }
.beside { display: flex; flex-wrap: wrap; gap: 0 3rem; } .beside > section { min-width: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; vertical-align: top;
  border-bottom: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); }
th:first-child, td:first-child { padding-left: 0; text-align: left; position: sticky; left: 0;
  background: Canvas; }
.text, .made td, td.below { text-align: left; } td.why, .made td { white-space: normal; }
.made td:last-child { overflow-wrap: anywhere; }
td.below { white-space: normal; padding: 0 0 .5rem; font-size: .9rem; position: static; }
tr:has(+ tr > .below) td { border-bottom: none; }
td.bare { color: color-mix(in srgb, CanvasText 75%, Canvas); font-size: .9rem; }
td.pair { outline: 2px solid var(--c1); outline-offset: -2px; }
.bar { height: .8rem; background: var(--c0); border-radius: 2px; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .3rem .8rem;
  align-items: center; margin: 1rem 0; }
pre { overflow-x: auto; padding: .6rem; font-size: .85rem; border-radius: 4px;
  background: color-mix(in srgb, CanvasText 7%, Canvas); }
pre.wrapped { white-space: pre-wrap; }
@media (max-width: 40rem) {
  th, td { padding: .3rem .25rem; font-size: .82rem; }
  th, td.text { white-space: normal; } td.text { overflow-wrap: anywhere; min-width: 3.8rem; }
  .models th, .models td { white-space: normal; overflow-wrap: break-word; }
}
"""
    + CURVES
)
