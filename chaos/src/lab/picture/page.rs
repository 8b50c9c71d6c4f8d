//! The page as text: the files of this folder with the data among them.
//!
//! Texts of programs may have anything in them, `</script>` too. The data are JSON in a script that isn't executed, with each `<`, `>`
//! and `&` escaped as JSON allows it, so no text can end that script. The page itself puts texts only into canvas and
//! `textContent`, and its content security policy forbids it to load anything.

use super::Picture;

const HTML: &str = include_str!("picture.html");
const CSS: &str = include_str!("picture.css");
const SCRIPTS: [&str; 4] = [
    include_str!("model.js"),
    include_str!("draw.js"),
    include_str!("controls.js"),
    include_str!("check.js"),
];

/// The whole page.
pub(super) fn page(picture: &Picture) -> String {
    let data = serde_json::to_string(picture).expect("a picture is plain data");
    let title = format!("{}: {}", picture.run, picture.title);
    let scripts = SCRIPTS.concat();
    let parts = [
        ("TITLE", html(&title)),
        ("STYLE", CSS.to_owned()),
        ("DATA", script_json(&data)),
        ("SCRIPT", scripts),
    ];
    let mut page =
        String::with_capacity(HTML.len() + parts.iter().map(|(_, part)| part.len()).sum::<usize>());
    let mut rest = HTML;
    // In one pass over the page's frame, so that a part's own text is never replaced.
    for (name, part) in parts {
        let (before, after) =
            rest.split_once(&format!("@{name}@")).expect("the page has a place for each part");
        page.push_str(before);
        page.push_str(&part);
        rest = after;
    }
    page + rest
}

/// JSON that may stand in a script of HTML.
fn script_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // These stand only within strings.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => safe += &format!("\\u{:04x}", u32::from(c)),
            _ => safe.push(c),
        }
    }
    safe
}

/// Text that may stand in an element of HTML.
fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_can_end_no_script_and_no_element() {
        let text = "</script><img src=x onerror=alert(1)>\u{2028}&amp; \u{1F600} \"\\ <!--";
        let safe = script_json(&serde_json::to_string(text).unwrap());
        assert!(!safe.contains(['<', '>', '&', '\u{2028}']), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        assert_eq!(html("</title>&"), "&lt;/title&gt;&amp;");
    }
}
