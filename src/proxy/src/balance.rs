use std::sync::Arc;

use crate::pool::Peer;

/// The upstreams of a route with their shares.
pub(crate) struct Peers {
    peers: Vec<Arc<Peer>>,
    /// For each peer its weight and that of all before it.
    bounds: Vec<u32>,
}

impl Peers {
    /// Takes each peer with its weight.
    pub(crate) fn new(weighted: impl Iterator<Item = (Arc<Peer>, u16)>) -> Self {
        let mut sum = 0;
        let (peers, bounds) = weighted
            .map(|(peer, weight)| {
                sum += u32::from(weight);
                (peer, sum)
            })
            .unzip();
        Self { peers, bounds }
    }

    /// The upstreams in the order to try them: of two random ones the one with less load for its
    /// weight, then the others.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Arc<Peer>> {
        let first = match self.peers.len() {
            0 | 1 => 0,
            _ => self.less_loaded(self.any(), self.any()),
        };
        self.peers[first..].iter().chain(&self.peers[..first])
    }

    /// A random one, each as often as its weight says.
    fn any(&self) -> usize {
        let total = self.bounds.last().copied().unwrap_or_default();
        let point = fastrand::u32(..total);
        self.bounds.partition_point(|bound| *bound <= point)
    }

    fn less_loaded(&self, one: usize, other: usize) -> usize {
        let cost =
            |index: usize, rival: usize| self.peers[index].load() as u64 * u64::from(self.weight(rival));
        if cost(other, one) < cost(one, other) {
            other
        } else {
            one
        }
    }

    fn weight(&self, index: usize) -> u32 {
        let before = index.checked_sub(1).map_or(0, |before| self.bounds[before]);
        self.bounds[index] - before
    }
}

#[cfg(test)]
mod tests {
    use fairlead_contract::UpstreamUrl;

    use super::*;
    use crate::dial::Dial;

    fn peers(weights: &[u16]) -> Peers {
        let peer = |port: usize| {
            let url = UpstreamUrl::parse(&format!("http://a:{}", port + 1)).unwrap();
            Arc::new(Peer::new(Dial::new(&url.into(), None).unwrap()))
        };
        Peers::new(
            weights
                .iter()
                .enumerate()
                .map(|(index, weight)| (peer(index), *weight)),
        )
    }

    #[test]
    fn every_upstream_is_tried_once() {
        for weights in [&[][..], &[1], &[1, 1], &[5, 1, 3]] {
            let peers = peers(weights);
            for _ in 0..50 {
                let mut tried: Vec<_> = peers.in_order().map(Arc::as_ptr).collect();
                tried.sort();
                tried.dedup();
                assert_eq!(tried.len(), weights.len());
            }
        }
    }

    #[test]
    fn without_load_the_weights_decide() {
        let peers = peers(&[1, 3]);
        let first = Arc::as_ptr(&peers.peers[0]);
        let firsts = (0..4000).filter(|_| peers.in_order().next().map(Arc::as_ptr) == Some(first));
        let count = firsts.count();
        assert!((800..1200).contains(&count), "{count} of 4000");
    }
}
