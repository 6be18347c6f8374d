//! SVG without a library: three panels a trace, one picture of all tunings.

use std::fmt::Write;

use crate::score::{SAMPLE_SECONDS, Sample};
use crate::study::Study;
use crate::traces::{ALL, PARTITIONS, SLO_SECONDS};

const COLORS: [&str; 3] = ["#1a73b8", "#d9822b", "#8b5fbf"];
const WIDTH: f64 = 760.0;
const LEFT: f64 = 60.0;
const PANEL: f64 = 110.0;
const GAP: f64 = 30.0;
/// Longer waits are drawn at the top: the target must stay visible.
const MOST_LAG_SECONDS: f64 = 180.0;

/// Load, replicas and longest wait over time.
pub fn trace(study: &Study, index: usize) -> String {
    let trace = &ALL[index];
    let seconds = f64::from(trace.length);
    let times: Vec<u32> = (0..trace.length).step_by(SAMPLE_SECONDS as usize).collect();
    let rates: Vec<f64> = times.iter().map(|&second| (trace.rate)(second)).collect();
    let most = rates.iter().copied().fold(1.0, f64::max);
    let mut svg = open(WIDTH, 3.0 * (PANEL + GAP) + 50.0);
    legend(&mut svg, study);
    let panels =
        [("records/s", most), ("replicas", PARTITIONS as f64), ("longest wait, s (cut at 180)", MOST_LAG_SECONDS)];
    for (row, (title, top)) in panels.into_iter().enumerate() {
        let y = 40.0 + row as f64 * (PANEL + GAP);
        axes(&mut svg, y, title, top, seconds);
        let place = |value: f64| y + PANEL - value.min(top) / top * PANEL;
        if row == 0 {
            line(&mut svg, "#555", times.iter().zip(&rates).map(|(&t, &rate)| (x(t, seconds), place(rate))));
            continue;
        }
        if row == 2 {
            let target = place(f64::from(SLO_SECONDS));
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{target:.1}\" x2=\"{WIDTH}\" y2=\"{target:.1}\" stroke=\"#c00\" stroke-dasharray=\"4\"/>"
            );
        }
        let value = |sample: &Sample| f64::from(if row == 1 { sample.replicas } else { sample.lag_seconds });
        // Ours last, on top.
        for (contender, color) in study.contenders().into_iter().zip(COLORS).rev() {
            let samples = &contender.best().runs[index].samples;
            line(&mut svg, color, times.iter().zip(samples).map(|(&t, sample)| (x(t, seconds), place(value(sample)))));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Each tuning as a point: left and low is good.
pub fn tunings(study: &Study) -> String {
    let all = || {
        study.contenders().into_iter().flat_map(|contender| contender.tried.iter().map(crate::study::Tuned::changing))
    };
    let most = |f: fn(crate::score::Score) -> u32| f64::from(all().map(f).max().unwrap_or(1).max(1)) * 1.05;
    let (wide, high) = (most(|score| score.replica_seconds), most(|score| score.violations));
    let height = 3.0 * PANEL;
    let mut svg = open(WIDTH, height + 100.0);
    legend(&mut svg, study);
    let bottom = 40.0 + height;
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} 40V{bottom}H{WIDTH}\" fill=\"none\" stroke=\"#999\"/>\
         <text x=\"{LEFT}\" y=\"36\">violation s, 0 to {high:.0}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">replica s, 0 to {wide:.0}</text>",
        WIDTH,
        bottom + 18.0
    );
    for (contender, color) in study.contenders().into_iter().zip(COLORS) {
        for (index, tuned) in contender.tried.iter().enumerate() {
            let score = tuned.changing();
            let x = LEFT + f64::from(score.replica_seconds) / wide * (WIDTH - LEFT);
            let y = bottom - f64::from(score.violations) / high * height;
            let (radius, fill) = if index == contender.chosen { (7, color) } else { (4, "none") };
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{fill}\" stroke=\"{color}\" stroke-width=\"2\"/>"
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        width + 20.0
    )
}

fn legend(svg: &mut String, study: &Study) {
    for (index, (contender, color)) in study.contenders().into_iter().zip(COLORS).enumerate() {
        let x = LEFT + index as f64 * 140.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"8\" width=\"12\" height=\"12\" fill=\"{color}\"/><text x=\"{}\" y=\"18\">{}</text>",
            x + 18.0,
            contender.name
        );
    }
}

fn axes(svg: &mut String, y: f64, title: &str, top: f64, seconds: f64) {
    let bottom = y + PANEL;
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {y}V{bottom}H{WIDTH}\" fill=\"none\" stroke=\"#999\"/>\
         <text x=\"{}\" y=\"{}\">{title}</text>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{top:.0}</text>\
         <text x=\"{WIDTH}\" y=\"{}\" text-anchor=\"end\">{:.0} min</text>",
        LEFT + 6.0,
        y + 10.0,
        LEFT - 6.0,
        y + 10.0,
        bottom + 14.0,
        seconds / 60.0
    );
}

fn x(second: u32, seconds: f64) -> f64 {
    LEFT + f64::from(second) / seconds * (WIDTH - LEFT)
}

fn line(svg: &mut String, color: &str, points: impl Iterator<Item = (f64, f64)>) {
    let _ = write!(svg, "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\" points=\"");
    // Only where it turns: a straight line needs its ends.
    let points: Vec<(f64, f64)> = points.collect();
    for (index, &(x, y)) in points.iter().enumerate() {
        let flat = |other: Option<&(f64, f64)>| other.is_some_and(|&(_, other)| (other - y).abs() < 0.05);
        let inside = index > 0 && flat(points.get(index - 1)) && flat(points.get(index + 1));
        if !inside {
            let _ = write!(svg, "{x:.1},{y:.1} ");
        }
    }
    svg.push_str("\"/>\n");
}
