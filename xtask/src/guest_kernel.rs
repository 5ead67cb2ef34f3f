//! `cargo xtask guest-kernel`: the tiny kernel, and its tests on this host's KVM.

use crate::workspace::Workspace;
use crate::{Failure, lab, run_to_end};

/// Builds the kernel, or finds it in the cache, and prints where it is; with `test`, boots it.
pub(crate) fn run(workspace: &Workspace, test: bool) -> Result<(), Failure> {
    run_to_end(&mut lab::build_lab(workspace))?;
    run_to_end(&mut lab::guest_kernel(workspace))?;
    if test {
        run_to_end(&mut lab::build_cuddy(workspace))?;
        run_to_end(&mut lab::tiny_kernel_tests(workspace))?;
    }
    Ok(())
}
