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

    /// The upstreams in the order to try them: the one at `home` if there is one, else of two random ones
    /// the one with less load for its weight; then the others. Those that rest come last: better a
    /// doubtful upstream than none.
    pub(crate) fn in_order<'a>(&'a self, home: Option<&'a Arc<Peer>>) -> impl Iterator<Item = &'a Arc<Peer>> {
        let first = match self.peers.len() {
            0 | 1 => 0,
            _ => self.less_loaded(self.any(), self.any()),
        };
        let others = self.peers[first..].iter().chain(&self.peers[..first]);
        let all = home.into_iter().chain(others);
        let is_alone = self.is_alone();
        let admitted = all.clone().filter(move |peer| is_alone || peer.health.admits());
        let doubtful = all.filter(move |peer| !is_alone && !peer.health.is_good());
        admitted.chain(doubtful)
    }

    /// Whether there is no other upstream to turn to.
    pub(crate) fn is_alone(&self) -> bool {
        self.peers.len() < 2
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.iter()
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
                let mut tried: Vec<_> = peers.in_order(None).map(Arc::as_ptr).collect();
                tried.sort();
                tried.dedup();
                assert_eq!(tried.len(), weights.len());
            }
        }
    }

    #[test]
    fn who_failed_comes_last_and_who_is_at_home_first() {
        let peers = peers(&[1, 1, 1]);
        let [failed, home, _] = &peers.peers[..] else {
            panic!("there are three");
        };
        failed.health.failed();
        for _ in 0..50 {
            let order: Vec<_> = peers.in_order(Some(home)).collect();
            assert!(Arc::ptr_eq(order[0], home));
            assert!(Arc::ptr_eq(order[order.len() - 1], failed));
        }
    }

    #[test]
    fn without_load_the_weights_decide() {
        let peers = peers(&[1, 3]);
        let first = Arc::as_ptr(&peers.peers[0]);
        let firsts = (0..4000).filter(|_| peers.in_order(None).next().map(Arc::as_ptr) == Some(first));
        let count = firsts.count();
        assert!((800..1200).contains(&count), "{count} of 4000");
    }
}
