//! OpenWrt's configuration files (UCI), as far as this crate asks them.

/// Bytes read of one file.
pub(crate) const MAX_FILE: u64 = 1 << 18;

/// `config KIND 'NAME'` and the options below it.
pub(crate) struct Section<'a> {
    /// Such as `interface`.
    pub(crate) kind: &'a str,
    /// Empty for an anonymous section.
    pub(crate) name: &'a str,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Section<'a> {
    /// The value of an option.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.options.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }
}

/// The sections of a file; lists and what is not understood are skipped.
pub(crate) fn sections(text: &str) -> impl Iterator<Item = Section<'_>> {
    let mut lines = text.lines().map(words).peekable();
    std::iter::from_fn(move || {
        let (kind, name) = loop {
            if let ("config", kind, name) = lines.next()? {
                break (kind, name);
            }
        };
        let mut options = Vec::new();
        while let Some((keyword, key, value)) = lines.next_if(|(keyword, ..)| *keyword != "config") {
            if keyword == "option" {
                options.push((key, value));
            }
        }
        Some(Section { kind, name, options })
    })
}

/// Keyword, first word and the rest of a line, unquoted.
fn words(line: &str) -> (&str, &str, &str) {
    let (keyword, rest) = cut(line);
    let (first, last) = cut(rest);
    (keyword, unquote(first), unquote(last))
}

fn cut(text: &str) -> (&str, &str) {
    let (word, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
    (word, rest.trim())
}

fn unquote(text: &str) -> &str {
    let inside = |mark| text.strip_prefix(mark)?.strip_suffix(mark);
    inside('\'').or_else(|| inside('"')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keep_their_options() {
        let text = "package network\n\nconfig interface 'wan'\n\toption device 'eth0.2'\n\tlist dns '1.1.1.1'\n\
                    \toption proto dhcp\nconfig device\n\toption name \"br-lan\"\n\toption\n'\n";
        let found: Vec<_> = sections(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].name), ("interface", "wan"));
        assert_eq!(found[0].get("device"), Some("eth0.2"));
        assert_eq!(found[0].get("proto"), Some("dhcp"));
        assert_eq!(found[0].get("dns"), None);
        assert_eq!((found[1].kind, found[1].name), ("device", ""));
        assert_eq!(found[1].get("name"), Some("br-lan"));
    }
}
