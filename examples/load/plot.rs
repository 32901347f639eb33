//! The drawing: one panel below the other.

use std::{fs, path::Path};

use hdrhistogram::Histogram;
use plotters::{coord::Shift, prelude::*};
use tower_migration::BoxError;

use crate::{
    scenarios::{Contender, Turns},
    statistics::Median,
};

/// One value of each contender, with its interval.
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) bars: Vec<(String, Median)>,
}

/// Latency by percentile.
pub(crate) struct Curves {
    title: String,
    curves: Vec<(String, Histogram<u64>)>,
}

/// One value by time, in seconds.
pub(crate) struct Line {
    pub(crate) title: String,
    pub(crate) values: Vec<(f64, f64)>,
}

enum Panel {
    Bars(Bars),
    Curves(Curves),
    Line(Line),
}

#[derive(Default)]
pub(crate) struct Plot(Vec<Panel>);

impl Curves {
    pub(crate) fn of(title: &str, contenders: &[Contender], turns: &Turns) -> Self {
        let curves = contenders
            .iter()
            .enumerate()
            .map(|(at, (name, _))| ((*name).to_owned(), turns.latency(at)))
            .collect();
        Self { title: title.to_owned(), curves }
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Up to one request in ten thousand.
const NINES: f64 = 4.0;

impl Plot {
    pub(crate) fn bars(&mut self, bars: Bars) {
        self.0.push(Panel::Bars(bars));
    }

    pub(crate) fn curves(&mut self, curves: Curves) {
        self.0.push(Panel::Curves(curves));
    }

    pub(crate) fn line(&mut self, line: Line) {
        self.0.push(Panel::Line(line));
    }

    pub(crate) fn draw(&self, path: &Path) -> Result<(), BoxError> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let height = 420 * self.0.len() as u32;
        let root = SVGBackend::new(path, (960, height)).into_drawing_area();
        root.fill(&WHITE)?;
        for (area, panel) in root.split_evenly((self.0.len(), 1)).iter().zip(&self.0) {
            match panel {
                Panel::Bars(bars) => bars.draw(area)?,
                Panel::Curves(curves) => curves.draw(area)?,
                Panel::Line(line) => line.draw(area)?,
            }
        }
        root.present()?;
        Ok(())
    }
}

impl Bars {
    fn draw(&self, area: &Area<'_>) -> Result<(), BoxError> {
        let count = self.bars.len() as f64;
        let ends = |median: &Median| median.between.unwrap_or([median.value; 2]);
        let largest = self.bars.iter().map(|(_, median)| ends(median)[1]).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(12)
            .build_cartesian_2d(0.0..largest * 1.05, 0.0..count)?;
        // The bars have their names in them.
        chart.configure_mesh().disable_y_mesh().y_labels(0).x_labels(12).draw()?;
        for (at, (name, median)) in self.bars.iter().enumerate() {
            let color = Palette99::pick(at);
            let middle = count - at as f64 - 0.5;
            let bar = [(0.0, middle - 0.3), (median.value, middle + 0.3)];
            chart.draw_series([Rectangle::new(bar, color.mix(0.5).filled())])?;
            let interval = ends(median).map(|end| (end, middle)).to_vec();
            chart.draw_series([PathElement::new(interval, BLACK.stroke_width(2))])?;
            let label = format!("{name}: {:.3}", median.value);
            chart.draw_series([Text::new(label, (0.01, middle), ("sans-serif", 14))])?;
        }
        Ok(())
    }
}

impl Curves {
    fn draw(&self, area: &Area<'_>) -> Result<(), BoxError> {
        // 1 - 10^-nines of all requests took at most so many milliseconds.
        let points = |latency: &Histogram<u64>| -> Vec<(f64, f64)> {
            let steps = (0..=200).map(|step| f64::from(step) / 200.0 * NINES);
            let at = |nines: f64| latency.value_at_quantile(1.0 - 10_f64.powf(-nines));
            steps.map(|nines| (nines, at(nines).max(1) as f64 / 1e6)).collect()
        };
        let curves: Vec<_> = self.curves.iter().map(|(_, latency)| points(latency)).collect();
        let all = || curves.iter().flatten().map(|(_, millis)| *millis);
        let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.01, f64::max));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..NINES, (least * 0.8..most * 1.2).log_scale())?;
        let percent = |nines: &f64| format!("{:.2} %", 100.0 * (1.0 - 10_f64.powf(-nines)));
        chart
            .configure_mesh()
            .x_labels(9)
            .x_label_formatter(&percent)
            .x_desc("of the requests")
            .y_desc("milliseconds")
            .draw()?;
        for (at, ((name, _), points)) in self.curves.iter().zip(curves).enumerate() {
            let color = Palette99::pick(at).to_rgba();
            chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?.label(name).legend(
                move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)),
            );
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        Ok(())
    }
}

impl Line {
    fn draw(&self, area: &Area<'_>) -> Result<(), BoxError> {
        let last = self.values.last().map_or(1.0, |(at, _)| at.max(0.001));
        let most = self.values.iter().map(|(_, value)| *value).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..last, 0.0..most * 1.2)?;
        chart.configure_mesh().x_desc("seconds").draw()?;
        chart.draw_series(LineSeries::new(self.values.iter().copied(), BLUE.stroke_width(2)))?;
        Ok(())
    }
}
