//! Measurements drawn as dots, one for each run.

use anyhow::{Result, ensure};
use plotters::prelude::{
    ChartBuilder, Circle, Color, IntoDrawingArea, IntoLogRange, PathElement, RGBColor, SVGBackend,
    WHITE,
};
use std::path::Path;

const WIDTH: u32 = 960;
/// What a row of dots takes, and what there is beside the rows.
const ROW: u32 = 30;
const BESIDE: u32 = 110;
const DOT: RGBColor = RGBColor(31, 95, 139);
const MEDIAN: RGBColor = RGBColor(200, 60, 40);

/// Writes a picture: a row for each thing that was measured, a dot for each run, on a scale of
/// milliseconds that grows tenfold from line to line; a stroke where the median is.
///
/// # Errors
/// When there is nothing to draw, or it cannot be written.
pub fn dots(to: &Path, title: &str, rows: &[(String, Vec<f64>)]) -> Result<()> {
    let all = || rows.iter().flat_map(|(_, taken)| taken.iter().copied());
    ensure!(all().count() > 0, "there is nothing to draw");
    let least = all().fold(f64::INFINITY, f64::min).max(0.1) / 1.5;
    let most = all().fold(0.0, f64::max) * 1.5;
    let height = ROW * rows.len() as u32 + BESIDE;
    let area = SVGBackend::new(to, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let bottom = rows.len() as f64 - 0.5;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(400)
        .build_cartesian_2d((least..most).log_scale(), bottom..-0.5)?;
    let name = |at: &f64| {
        let row = rows.get(at.round() as usize).filter(|_| at.fract().abs() < 0.01);
        row.map(|(what, _)| what.clone()).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows.len() * 2 + 1)
        .y_label_formatter(&name)
        .x_desc("milliseconds")
        .draw()?;
    for (n, (_, taken)) in rows.iter().enumerate() {
        let at = n as f64;
        let dot = |&ms: &f64| Circle::new((ms.max(0.1), at), 4, DOT.mix(0.45).filled());
        chart.draw_series(taken.iter().map(dot))?;
        let mut taken = taken.clone();
        taken.sort_by(f64::total_cmp);
        if let Some(&median) = taken.get(taken.len() / 2) {
            let stroke = vec![(median.max(0.1), at - 0.35), (median.max(0.1), at + 0.35)];
            let style = MEDIAN.stroke_width(2);
            chart.draw_series([PathElement::new(stroke, style)])?;
        }
    }
    Ok(area.present()?)
}
