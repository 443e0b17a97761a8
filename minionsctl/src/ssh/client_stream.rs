//! Standard input and output as the connection to the SSH client.

use super::input_budget::{InputBudget, ReadPermission};
use rustix::fs::{FileType, fstat};
use rustix::stdio::{stdin, stdout};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::{Sleep, sleep};

/// Connection to the SSH client. It is read more slowly while the [`InputBudget`] is used up.
pub(super) struct ClientStream {
    input: Box<dyn AsyncRead + Send + Unpin>,
    output: Box<dyn AsyncWrite + Send + Unpin>,
    budget: Arc<InputBudget>,
    /// Wait before the next read.
    pause: Option<Pin<Box<Sleep>>>,
}

/// Kind of a descriptor. A terminal is refused, because it would stay in non-blocking mode after this process ends.
enum DescriptorKind {
    Pipe,
    Socket,
}

impl ClientStream {
    /// Takes standard input and output, which must be pipes or sockets.
    pub(super) fn from_stdio(budget: &Arc<InputBudget>) -> io::Result<Self> {
        let input: Box<dyn AsyncRead + Send + Unpin> = match kind(stdin())? {
            DescriptorKind::Pipe => Box::new(pipe::Receiver::from_owned_fd(duplicate(stdin())?)?),
            DescriptorKind::Socket => Box::new(socket(stdin())?),
        };
        let output: Box<dyn AsyncWrite + Send + Unpin> = match kind(stdout())? {
            DescriptorKind::Pipe => {
                let watched = pipe::Sender::from_owned_fd(duplicate(stdout())?)?;
                tokio::spawn(watch_pipe(watched, Arc::clone(budget)));
                Box::new(pipe::Sender::from_owned_fd(duplicate(stdout())?)?)
            }
            DescriptorKind::Socket => {
                tokio::spawn(watch_socket(socket(stdout())?, Arc::clone(budget)));
                Box::new(socket(stdout())?)
            }
        };
        Ok(Self { input, output, budget: Arc::clone(budget), pause: None })
    }
}

fn kind(fd: BorrowedFd<'_>) -> io::Result<DescriptorKind> {
    match FileType::from_raw_mode(fstat(fd)?.st_mode) {
        FileType::Fifo => Ok(DescriptorKind::Pipe),
        FileType::Socket => Ok(DescriptorKind::Socket),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a pipe or socket")),
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

fn socket(fd: BorrowedFd<'_>) -> io::Result<UnixStream> {
    let socket = StdUnixStream::from(duplicate(fd)?);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Waits until the client has closed its side of the output. The end of the input goes unnoticed while the input is not
/// read.
async fn watch_pipe(output: pipe::Sender, budget: Arc<InputBudget>) {
    // The kernel reports an error for a pipe without a reader.
    let _ = output.ready(Interest::ERROR).await;
    budget.hang_up();
}

/// Waits as [`watch_pipe`] does, for a socket.
async fn watch_socket(output: UnixStream, budget: Arc<InputBudget>) {
    while let Ok(ready) = output.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            break;
        }
        // Data is left to the reader; only the end of the connection matters here.
        let clear = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = output.try_io(Interest::READABLE, clear);
    }
    budget.hang_up();
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.budget.permission(context) {
            ReadPermission::Read => {}
            ReadPermission::After(time) => {
                let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(time)));
                ready!(pause.as_mut().poll(context));
            }
            ReadPermission::End => return Poll::Ready(Ok(())),
        }
        self.pause = None;
        Pin::new(&mut self.input).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_shutdown(context)
    }
}
