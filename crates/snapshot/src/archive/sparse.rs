//! Sparse maps: where the stored bytes of a file with holes belong.

/// A run of stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Extent {
    /// The first byte after it, unless that overflows.
    pub(crate) fn end(self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }
}

/// Decimal numbers separated by commas or newlines; `None` where anything else stands.
pub(crate) fn numbers(text: &[u8]) -> Option<Vec<u64>> {
    let text = std::str::from_utf8(text).ok()?;
    let parts = text.split([',', '\n']).filter(|part| !part.is_empty());
    parts.map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?).collect()
}

/// The map of PAX sparse formats 0.0 (a pair of records a run) and 0.1 (one record with all), if there is one.
pub(crate) fn pax_map(records: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<Vec<Extent>>, &'static str> {
    let mut values = Vec::new();
    let mut sparse = false;
    for (key, value) in records {
        if !matches!(key.as_slice(), b"GNU.sparse.map" | b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            continue;
        }
        sparse = true;
        values.extend(numbers(value).ok_or("bad sparse map")?);
    }
    if values.len() % 2 != 0 {
        return Err("bad sparse map");
    }
    let pair = |pair: &[u64]| Extent { offset: pair[0], length: pair[1] };
    Ok(sparse.then(|| values.chunks_exact(2).map(pair).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_both_pax_formats_are_read() {
        let record = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        let wanted = Some(vec![Extent { offset: 0, length: 5 }, Extent { offset: 100, length: 7 }]);
        let old = ["offset", "numbytes", "offset", "numbytes"].iter().zip(["0", "5", "100", "7"]);
        let old: Vec<_> = old.map(|(key, value)| record(&format!("GNU.sparse.{key}"), value)).collect();
        assert_eq!(pax_map(&old).unwrap(), wanted);
        assert_eq!(pax_map(&[record("GNU.sparse.map", "0,5,100,7")]).unwrap(), wanted);
        assert_eq!(pax_map(&[record("path", "x")]).unwrap(), None);
        assert!(pax_map(&[record("GNU.sparse.map", "0,5,100")]).is_err());
        assert!(pax_map(&[record("GNU.sparse.map", "0,-5")]).is_err());
    }
}
