//! Shuts the camera in: devices, its configuration's folder, and the calls that it makes.
//!
//! On request only (`OCELLUS_SANDBOX=1`, as process 1 of the firmware asks), and before there are
//! threads. A kernel that cannot is warned of: a camera that does not run protects nobody.

use std::path::Path;

use anyhow::bail;
use log::{info, warn};
use ocellus::config::{Config, Source};
use ocellus::sys::sandbox;

/// Restricts this process, if its environment says so.
pub(super) fn enter(config: &Config, file: Option<&Path>) -> anyhow::Result<()> {
    if std::env::var_os(VARIABLE).is_none_or(|value| value != "1") {
        return Ok(());
    }
    let file = file.and_then(|file| file.canonicalize().ok());
    let folder = file.as_deref().and_then(Path::parent);
    if let Source::File(clip) = &config.camera.source {
        check_clip(clip, folder)?;
    }
    let files = sandbox::restrict_files(folder.as_slice(), &[Path::new("/dev")]);
    if let Err(error) = &files {
        warn!("run: files are not restricted error={error}");
    }
    let calls = sandbox::restrict_calls();
    if let Err(error) = &calls {
        warn!("run: system calls are not restricted error={error}");
    }
    info!("run: sandbox files={} calls={}", files.is_ok(), calls.is_ok());
    Ok(())
}

/// Says in words what would otherwise be a bare "permission denied".
fn check_clip(clip: &Path, folder: Option<&Path>) -> anyhow::Result<()> {
    let clip = clip.canonicalize().unwrap_or_else(|_| clip.to_owned());
    match folder {
        Some(folder) if clip.starts_with(folder) => Ok(()),
        Some(folder) => bail!(
            "camera.source: file:{} is outside of {}, the only folder that the sandbox leaves open",
            clip.display(),
            folder.display()
        ),
        None => bail!(
            "camera.source: file:{} cannot be read in the sandbox, which leaves open only the \
             folder of the configuration file, and there is none",
            clip.display()
        ),
    }
}

const VARIABLE: &str = "OCELLUS_SANDBOX";
