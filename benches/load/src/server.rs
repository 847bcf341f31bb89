//! The one that is asked: nginx, which answers 200 at once and counts what it was asked.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll_bench_common::Process;

/// nginx, for as long as there is the value.
pub struct Server {
    pub address: SocketAddr,
    _process: Process,
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
        let log = folder.join("nginx.log");
        let arguments = ["-p", &at.to_string(), "-e", &format!("{at}/nginx.error"), "-c", &file.to_string_lossy()];
        let process = Process::start("TERM", "nginx", &arguments, &log.to_string_lossy())
            .map_err(|error| io::Error::other(format!("setpriv of util-linux does not start: {error}")))?;
        let server = Server { address, _process: process };
        let since = Instant::now();
        while let Err(error) = server.count() {
            if since.elapsed() > Duration::from_secs(10) {
                let said = fs::read_to_string(&log).unwrap_or_default();
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
