//! A machine under test: `cuddy run`, its console, its end.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::console::{Console, ConsoleError};
use crate::error::{Context, LabError, Result};

/// The options of a machine. [`command`](Self::command) is the one place that knows how they are said.
#[derive(Debug, Clone)]
pub struct MachineOptions {
    /// The program `cuddy`.
    pub cuddy: PathBuf,
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The initrd's file.
    pub initrd: PathBuf,
    /// Number of vCPUs.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// The kernel's command line.
    pub cmdline: String,
    /// `split` or `kernel`.
    pub irqchip: &'static str,
    /// `--disk` options.
    pub disks: Vec<String>,
    /// `--net` options.
    pub nets: Vec<String>,
    /// `--vsock` option.
    pub vsock: Option<String>,
    /// Further words, such as `--on-reboot restart`.
    pub more: Vec<&'static str>,
}

impl MachineOptions {
    /// A machine with one vCPU, 512 MiB and a quiet console.
    pub fn new(cuddy: &Path, kernel: &Path, initrd: &Path) -> Self {
        Self {
            cuddy: cuddy.to_owned(),
            kernel: kernel.to_owned(),
            initrd: initrd.to_owned(),
            cpus: 1,
            memory_mib: 512,
            cmdline: "console=ttyS0 quiet".to_owned(),
            irqchip: "split",
            disks: Vec::new(),
            nets: Vec::new(),
            vsock: None,
            more: Vec::new(),
        }
    }

    /// The command that runs the machine.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.cuddy);
        command
            .arg("run")
            .arg("--kernel")
            .arg(&self.kernel)
            .arg("--initrd")
            .arg(&self.initrd)
            .args(["--cpus", &self.cpus.to_string()])
            .args(["--memory", &format!("{}M", self.memory_mib)])
            .args(["--cmdline", &self.cmdline])
            .args(["--irqchip", self.irqchip]);
        for disk in &self.disks {
            command.args(["--disk", disk]);
        }
        for net in &self.nets {
            command.args(["--net", net]);
        }
        if let Some(vsock) = &self.vsock {
            command.args(["--vsock", vsock]);
        }
        command.args(&self.more);
        command
    }

    /// Starts the machine.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start(&self) -> Result<Machine> {
        Machine::start(&mut self.command())
    }
}

/// A running machine, killed when this value is dropped.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    /// The guest's first serial port.
    pub console: Console,
    messages: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Machine {
    /// Starts the machine of `command`, whose serial port is on its standard input and output.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context(|| format!("starting {}", command.get_program().display()))?;
        let (Some(input), Some(output), Some(mut errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(LabError::Unusable("the machine has no pipes".to_owned()));
        };
        let messages = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&messages);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = errors.read(&mut buffer) {
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Ok(Self {
            child,
            console: Console::new(input, output),
            messages,
            reader: Some(reader),
        })
    }

    /// Process identifier of the machine.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether its process has ended.
    ///
    /// # Errors
    ///
    /// The host's.
    pub fn has_ended(&mut self) -> Result<bool> {
        let status = self.child.try_wait();
        Ok(status
            .context(|| "looking after the machine".to_owned())?
            .is_some())
    }

    /// What the machine wrote on its error output so far.
    pub fn messages(&self) -> String {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until `text` is in what the machine wrote on its error output, `times` times.
    ///
    /// # Errors
    ///
    /// When it is not within `limit`.
    pub fn expect_message(&self, text: &str, times: usize, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.messages().matches(text).count() < times {
            if Instant::now() > deadline {
                return Err(LabError::Unusable(format!(
                    "no {text:?} within {} s; the messages of the machine:\n{}",
                    limit.as_secs(),
                    self.messages()
                )));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits for the machine's end.
    ///
    /// # Errors
    ///
    /// When it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self
                .child
                .try_wait()
                .context(|| "waiting for the machine".to_owned())?
            {
                if let Some(reader) = self.reader.take() {
                    let _ = reader.join();
                }
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(LabError::Unusable(format!(
                    "the machine did not end within {} s; its console had:\n{}\nand its messages:\n{}",
                    limit.as_secs(),
                    self.console.transcript(),
                    self.messages()
                )));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a command in the guest's shell, see [`Console::run`].
    ///
    /// # Errors
    ///
    /// Those of the console.
    pub fn run(
        &mut self,
        command: &str,
        limit: Duration,
    ) -> std::result::Result<String, ConsoleError> {
        self.console.run(command, limit)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "--- console of the machine ---\n{}",
                self.console.transcript()
            );
            eprintln!("--- its messages ---\n{}", self.messages());
        }
    }
}
