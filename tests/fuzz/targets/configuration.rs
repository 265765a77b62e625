//! The configuration as somebody might write it, and as the web side might change it.

use ocellus::config::{Config, Impact, MAX_LEN, difference};

/// Any text: what is accepted comes back from what is written of it, and an error is a short text
/// that can be printed.
pub(super) fn parse(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Config::from_json(&text) {
        Ok(config) => {
            comes_back(&config);
            let mut adopting = Config::default();
            adopting.adopt(&config);
            let left = difference(&adopting, &config);
            assert!(left.iter().all(|(_, impact)| *impact == Impact::Restart), "{left:?}");
        }
        Err(error) => is_short(&error.to_string(), text.len()),
    }
}

/// A change of one stream: the whole stays a configuration.
pub(super) fn change(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let before = Config::from_json(
        r#"{ "streams": [{ "name": "main" }, { "name": "sub", "width": 640, "height": 360, "fps": 10 }] }"#,
    )
    .expect("two streams");
    for (index, stream) in ["main", "sub"].into_iter().enumerate() {
        match before.change(stream, &text).expect("there is such a stream") {
            Ok(change) => {
                assert_eq!(change.stream, index);
                comes_back(&change.config);
                let elsewhere =
                    |(path, _): &(String, Impact)| !path.starts_with(&format!("streams[{index}]"));
                assert!(!difference(&before, &change.config).iter().any(elsewhere));
                assert!(change.to_json().ends_with("}\n"));
            }
            Err(error) => is_short(&error.to_string(), text.len()),
        }
    }
}

fn comes_back(config: &Config) {
    let written = config.to_json();
    assert!(written.len() <= MAX_LEN, "{} bytes", written.len());
    assert_eq!(Config::from_json(&written).expect("the camera's own"), *config);
    assert!(difference(config, config).is_empty());
}

/// A key is named in full, with its path twice; values are cut.
fn is_short(error: &str, input_len: usize) {
    assert!(error.len() <= 512 + 4 * input_len.min(2 * MAX_LEN), "{} bytes", error.len());
    assert!(!error.is_empty() && !error.contains('\0'), "{error:?}");
}
