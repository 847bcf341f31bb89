use crate::markup::coordinate;
use crate::topology::Topology;

/// Size of a node, and the room between two, across and down, px.
pub(super) const NODE: (f64, f64) = (184.0, 58.0);
const GAP: (f64, f64) = (112.0, 26.0);
/// Around it all.
pub(super) const MARGIN: f64 = 14.0;

/// Where everything stands.
pub(super) struct Layout {
    /// The upper left corner of every node.
    pub(super) nodes: Vec<(f64, f64)>,
    /// For each link that leads over several layers, the points that it passes between them.
    pub(super) through: Vec<Vec<(f64, f64)>>,
}

/// Height that a link takes where it passes a layer.
const PASS: f64 = 18.0;

/// Layers from left to right. A link that leads over a layer takes a place in it, as a node does,
/// so that it runs between the nodes there and not behind them.
pub(super) fn layout(topology: &Topology) -> Layout {
    let layers = topology.layers();
    let real = layers.len();
    let mut layer_of = layers.clone();
    let mut passes: Vec<Vec<usize>> = Vec::new();
    // Steps between neighbouring layers: what the order within a layer is judged by.
    let mut steps: Vec<(usize, usize)> = Vec::new();
    for link in &topology.links {
        let mut pass = Vec::new();
        let mut last = link.from;
        for layer in layers[link.from] + 1..layers[link.to] {
            layer_of.push(layer);
            steps.push((last, layer_of.len() - 1));
            last = layer_of.len() - 1;
            pass.push(last);
        }
        steps.push((last, link.to));
        passes.push(pass);
    }
    let depth = layer_of.iter().max().map_or(0, |last| last + 1);
    let mut columns: Vec<Vec<usize>> =
        (0..depth).map(|layer| (0..layer_of.len()).filter(|at| layer_of[*at] == layer).collect()).collect();
    let height = |at: usize| if at < real { NODE.1 } else { PASS };
    let mut middle = vec![0.0; layer_of.len()];
    for sweep in 0..8 {
        for column in &mut columns {
            if sweep > 0 {
                // Barycentres, forth and back: a node stands beside those that it is linked with.
                let mut keyed: Vec<(f64, usize)> =
                    column.iter().map(|at| (barycentre(*at, sweep, &steps, &middle), *at)).collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                *column = keyed.into_iter().map(|(_, at)| at).collect();
            }
            let total: f64 = column.iter().map(|at| height(*at) + GAP.1).sum::<f64>() - GAP.1;
            let mut y = -total / 2.0;
            for at in column.iter() {
                middle[*at] = y + height(*at) / 2.0;
                y += height(*at) + GAP.1;
            }
        }
    }
    let top = (0..layer_of.len()).map(|at| middle[at] - height(at) / 2.0).fold(f64::INFINITY, f64::min);
    let x = |at: usize| MARGIN + layer_of[at] as f64 * (NODE.0 + GAP.0);
    let y = |at: usize| middle[at] - top + MARGIN + 8.0;
    Layout {
        nodes: (0..real).map(|at| (x(at), y(at) - NODE.1 / 2.0)).collect(),
        through: passes.into_iter().map(|pass| pass.into_iter().map(|at| (x(at), y(at))).collect()).collect(),
    }
}

/// The mean place of the neighbours on one side, in turn; its own where it has none there.
fn barycentre(at: usize, sweep: usize, steps: &[(usize, usize)], middle: &[f64]) -> f64 {
    let beside: Vec<f64> = steps
        .iter()
        .filter_map(|(from, to)| match sweep % 2 {
            1 if *to == at => Some(middle[*from]),
            0 if *from == at => Some(middle[*to]),
            _ => None,
        })
        .collect();
    if beside.is_empty() { middle[at] } else { beside.iter().sum::<f64>() / beside.len() as f64 }
}

/// Part of a link: a curve that leaves and arrives level.
#[derive(Clone, Copy)]
pub(super) struct Curve {
    pub(super) from: (f64, f64),
    pub(super) to: (f64, f64),
    bend: f64,
}

impl Curve {
    pub(super) fn path(&self) -> String {
        let (x1, x2) = (self.from.0 + self.bend, self.to.0 - self.bend);
        let points = [x1, self.from.1, x2, self.to.1, self.to.0, self.to.1].map(coordinate);
        format!("C{}", points.join(" "))
    }

    /// The point at `t` of 0 to 1.
    pub(super) fn at(&self, t: f64) -> (f64, f64) {
        let u = 1.0 - t;
        let along =
            |a: f64, b: f64, c: f64, d: f64| u * u * u * a + 3.0 * u * u * t * b + 3.0 * u * t * t * c + t * t * t * d;
        let (x1, x2) = (self.from.0 + self.bend, self.to.0 - self.bend);
        (along(self.from.0, x1, x2, self.to.0), along(self.from.1, self.from.1, self.to.1, self.to.1))
    }
}

/// The curves of a link, from the right side of one node to the left side of another; where it
/// leads back, along their lower halves.
pub(super) fn curves(from: (f64, f64), to: (f64, f64), through: &[(f64, f64)]) -> Vec<Curve> {
    let mid = NODE.1 / 2.0;
    if to.0 <= from.0 {
        let ends = ((from.0, from.1 + mid + 14.0), (to.0 + NODE.0 + 2.0, to.1 + mid + 14.0));
        return vec![Curve { from: ends.0, to: ends.1, bend: -60.0 }];
    }
    let mut curves = Vec::new();
    let mut start = (from.0 + NODE.0, from.1 + mid);
    let mut push = |start: (f64, f64), end: (f64, f64)| {
        curves.push(Curve { from: start, to: end, bend: ((end.0 - start.0) * 0.5).clamp(10.0, 140.0) });
    };
    for (x, y) in through {
        push(start, (*x, *y));
        push((*x, *y), (x + NODE.0, *y));
        start = (x + NODE.0, *y);
    }
    push(start, (to.0 - 2.0, to.1 + mid));
    curves
}
