//! What a mistyped word was probably meant to be.

/// The known word that is nearest to a mistyped one, if any is near: at most a third of its letters changed.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance with neighbours' swaps (optimal string alignment), over at most 64 letters of each.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_found_and_a_far_one_is_not() {
        let known = ["store.copies", "store.quota_gb", "uplink.gateways"];
        assert_eq!(nearest("store.copeis", known.into_iter()), Some("store.copies"));
        assert_eq!(nearest("uplink.gatewys", known.into_iter()), Some("uplink.gateways"));
        assert_eq!(nearest("weather", known.into_iter()), None);
        let known = ["mesh.port", "mesh.peers", "uplink.share"];
        assert_eq!(nearest("mesh.prot", known.into_iter()), Some("mesh.port"));
        assert_eq!(nearest("uplink.shair", known.into_iter()), Some("uplink.share"));
        assert_eq!(nearest("weather", known.into_iter()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
