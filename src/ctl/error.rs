//! Why a command did not come to an answer, and what the exit code makes of it.

use tonic::{Code, Status};

/// A command without an answer to print.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The command line or a file it names is wrong.
    #[error("{0}")]
    Usage(String),
    /// Nobody there, or no answer in time.
    #[error("{0}")]
    Unreachable(String),
    /// An answer came: no.
    #[error("{0}")]
    Refused(String),
    /// Whoever reads our output went away.
    #[error("write the output: {0}")]
    Output(#[from] std::io::Error),
}

impl CtlError {
    /// See the help text: 1 for usage and reach, 2 for a refusal.
    pub fn exit_code(&self) -> u8 {
        match self {
            CtlError::Usage(_) | CtlError::Unreachable(_) | CtlError::Output(_) => 1,
            CtlError::Refused(_) => 2,
        }
    }
}

impl From<Status> for CtlError {
    fn from(status: Status) -> Self {
        let text = status.message();
        match status.code() {
            Code::PermissionDenied => CtlError::Refused(format!("permission denied: {text}")),
            Code::Unimplemented | Code::InvalidArgument | Code::FailedPrecondition => {
                CtlError::Refused(text.to_owned())
            }
            Code::DeadlineExceeded | Code::Cancelled => {
                CtlError::Unreachable(format!("no answer in time ({text}); the command may still take effect"))
            }
            code => CtlError::Unreachable(format!("the connection failed: {code:?}: {text}")),
        }
    }
}
