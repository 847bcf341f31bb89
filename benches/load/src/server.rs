//! The one that is asked: nginx, which answers 200 at once and counts what it was asked.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// nginx. It is told to go when the value is dropped, and ends with this process however that ends: the kernel sends
/// it a signal then (`setpriv --pdeathsig`).
pub struct Server {
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts it, with what it writes in a folder.
    pub fn start(folder: &Path) -> io::Result<Server> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let at = folder.display();
        let settings = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {at}/nginx.pid;\nerror_log {at}/nginx.error crit;\n\
             events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n  keepalive_timeout 300s;\n\
             \x20 keepalive_requests 100000000;\n  tcp_nodelay on;\n  client_body_temp_path {at}/body;\n\
             \x20 proxy_temp_path {at}/proxy;\n  fastcgi_temp_path {at}/f;\n  uwsgi_temp_path {at}/u;\n\
             \x20 scgi_temp_path {at}/s;\n  server {{\n    listen {address} backlog=4096;\n\
             \x20   location / {{ return 200; }}\n    location = /count {{ stub_status; }}\n  }}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, settings)?;
        let log = fs::File::create(folder.join("nginx.log"))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "nginx", "-p", &at.to_string()])
            .args(["-e", &format!("{at}/nginx.error"), "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| io::Error::other(format!("setpriv of util-linux does not start: {error}")))?;
        let server = Server { address, child };
        let since = Instant::now();
        while let Err(error) = server.count() {
            if since.elapsed() > Duration::from_secs(10) {
                let said = fs::read_to_string(folder.join("nginx.log")).unwrap_or_default();
                return Err(io::Error::other(format!("nginx does not start: {error}\n{said}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// How many requests it has seen, this one included.
    pub fn count(&self) -> io::Result<u64> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /count HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        // "server accepts handled requests", and below it three numbers.
        let numbers = said.split("requests").nth(1).unwrap_or_default();
        let count = numbers.split_whitespace().nth(2).and_then(|count| count.parse().ok());
        count.ok_or_else(|| io::Error::other(format!("nginx says nothing of its requests: {said}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if since.elapsed() > Duration::from_secs(3) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
