// The style sheet of the quickstart's report: light and dark, wide and narrow screens, paper.
#pragma once

#include <string_view>

namespace quickstart {

/// Heat-map cells lay --hit or --miss over the page with an opacity of their own; both colours are chosen so that ink
/// is readable on cells below an opacity of 0.72 and --on above, on light and on dark pages alike.
inline constexpr std::string_view report_style = R"css(
:root { color-scheme: light dark; --page: #fff; --card: #f6f7f9; --ink: #15181d; --soft: #5a6270; --line: #d9dde3;
  --accent: #164282; --hit: 22 66 130; --miss: 150 62 8; --on: #fff; --grey: #9aa3b0; --warn: #963e08; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --card: #1c2027; --ink: #eceff4; --soft: #a3acb9;
  --line: #343b46; --accent: #6ea3f2; --hit: 91 147 230; --miss: 222 128 58; --on: #07090c; --grey: #6b7482;
  --warn: #e8935a; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); print-color-adjust: exact;
  -webkit-print-color-adjust: exact; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "Liberation Sans", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 56px 24px 40px; }
h1 { font-size: clamp(30px, 5vw, 46px); line-height: 1.1; letter-spacing: -0.02em; margin: 0; text-wrap: balance;
  overflow-wrap: anywhere; }
.subtitle { font-size: clamp(17px, 2vw, 20px); color: var(--soft); margin: 12px 0 0; max-width: 46em;
  overflow-wrap: anywhere; }
section { margin-top: 64px; }
h2 { font-size: 25px; line-height: 1.2; letter-spacing: -0.01em; margin: 0; }
hgroup p { color: var(--soft); margin: 6px 0 22px; max-width: 52em; text-wrap: pretty; }
h3 { font-size: 17px; line-height: 1.3; margin: 0 0 10px; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: 1px; margin: 34px 0 0;
  background: var(--line); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.facts div { flex: 1 1 145px; background: var(--page); padding: 12px 16px; }
dt { color: var(--soft); font-size: 13.5px; }
dd { margin: 0; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.scores { display: grid; grid-template-columns: repeat(2, 1fr); gap: 26px 48px; }
.score p { display: flex; align-items: baseline; justify-content: space-between; gap: 12px; margin: 0; }
.score b { font-size: 26px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.score .reference { color: var(--soft); font-size: 14px; margin-top: 4px; font-variant-numeric: tabular-nums; }
.track { background: var(--card); box-shadow: inset 0 0 0 1px var(--line); border-radius: 3px; margin-top: 4px;
  overflow: hidden; }
.track i { display: block; height: 14px; background: var(--accent); }
.track i.other { height: 7px; background: var(--grey); }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg path { fill: none; stroke: var(--accent); stroke-linejoin: round; stroke-linecap: round; }
svg .raw { stroke-width: 1; opacity: 0.5; }
svg .smooth { stroke-width: 3; }
svg .chance { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 7 5; stroke-linecap: butt; }
svg .skipped { stroke: var(--warn); stroke-width: 2; }
svg .end { fill: var(--accent); }
svg text.value { fill: var(--ink); font-weight: 700; }
svg text.halo { fill: var(--ink); paint-order: stroke; stroke: var(--page); stroke-width: 5px; }
figcaption { display: flex; flex-wrap: wrap; gap: 4px 26px; margin-top: 10px; font-size: 14px; color: var(--soft); }
figcaption span { display: flex; align-items: center; }
figcaption svg { flex: none; width: 30px; height: 10px; margin-right: 8px; }
.narrow { display: none; }
.sheets { display: grid; grid-template-columns: repeat(2, 1fr); gap: 20px; }
.sheet { background: var(--card); border-radius: 12px; padding: 16px; min-width: 0; }
.pictures { display: grid; grid-template-columns: repeat(8, 1fr); gap: 8px; list-style: none; margin: 0; padding: 0; }
.pictures li { text-align: center; font-size: 12.5px; color: var(--soft); font-variant-numeric: tabular-nums; }
img { image-rendering: auto; display: block; background: #fff; border-radius: 5px; object-fit: contain; }
.pictures img { width: 100%; aspect-ratio: 1; margin-bottom: 3px; box-shadow: 0 0 0 1px var(--line); }
.query { display: flex; align-items: center; gap: 14px; margin-bottom: 14px; }
.query img { flex: none; width: 76px; height: 76px; box-shadow: 0 0 0 3px var(--accent); }
.query h3, .clamp { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
.query h3 { margin: 0; }
.clamp { -webkit-line-clamp: 2; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 4px; }
table { border-collapse: separate; border-spacing: 1px; font-size: 12.5px; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
th { font-weight: 400; padding: 0; }
tbody th, thead td { position: sticky; left: 0; z-index: 1; background: var(--page); }
tbody th { text-align: left; padding-right: 10px; overflow-wrap: anywhere; }
.cell { padding: 0; text-align: center; border-radius: 2px; background-color: var(--card); }
.high { color: var(--on); }
.diagonal { box-shadow: inset 0 0 0 2px var(--ink); }
.best { font-weight: 800; text-decoration: underline; text-underline-offset: 2px; }
.similarity { --cell: 50px; }
.similarity .cell { min-width: var(--cell); width: var(--cell); height: 42px; }
.similarity thead th { padding-bottom: 5px; }
.similarity thead img { width: var(--cell); height: var(--cell); box-shadow: inset 0 0 0 1px var(--line); }
.similarity tbody th, .similarity thead td { width: 226px; min-width: 226px; font-size: 13.5px; }
.confusion .cell { min-width: var(--cell); width: var(--cell); height: var(--cell); font-size: 11px; }
.confusion thead th { vertical-align: bottom; height: 1px; padding-bottom: 5px; }
.confusion thead th span { display: block; margin: 0 auto; writing-mode: vertical-rl; transform: rotate(180deg);
  max-height: 150px; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; line-height: 1.25; }
.confusion tbody th span { display: block; width: max-content; max-width: 146px; overflow: hidden; white-space: nowrap;
  text-overflow: ellipsis; line-height: 1.3; }
.confusion tr:hover th { font-weight: 700; }
.confusion thead th.share { vertical-align: bottom; text-align: left; padding-left: 10px; color: var(--soft); }
.confusion td.share { padding-left: 10px; white-space: nowrap; }
.share .track { display: inline-block; width: 44px; margin: 0 6px 0 0; vertical-align: middle; }
.share .track i { height: 9px; }
.share small { color: var(--soft); font-size: inherit; }
.key i { width: 15px; height: 15px; margin-right: 8px; border-radius: 2px; }
.scroll + figcaption { margin-top: 14px; }
pre { background: var(--card); border-radius: 12px; padding: 20px; overflow-x: auto; margin: 0; tab-size: 4;
  font: 14px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
@media (max-width: 900px) { .sheets { grid-template-columns: 1fr; } .facts div { flex-basis: 30%; } }
@media (max-width: 640px) {
  main { padding: 32px 16px; }
  section { margin-top: 48px; }
  .facts div { flex-basis: 40%; }
  .scores { grid-template-columns: 1fr; }
  .pictures { grid-template-columns: repeat(4, 1fr); gap: 10px; }
  .wide { display: none; }
  .narrow { display: block; }
  .similarity { --cell: 37px; font-size: 11px; }
  .similarity .cell { height: 40px; }
  .similarity tbody th, .similarity thead td { width: 124px; min-width: 124px; font-size: 12px; }
  .confusion tbody th span { max-width: 104px; }
  pre { padding: 14px; font-size: 12.5px; }
}
@media print { main { max-width: none; padding: 0; } .sheet, .score, figure, h2 { break-inside: avoid; } }
)css";

}  // namespace quickstart
