use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use plimsoll_export::{Address, Directory, Files, Site};

use crate::exit::Exit;
use crate::file::SystemFile;
use crate::output::{print, write, wrote};

/// Write the configuration that makes nginx, HAProxy or Envoy do what a gateway of the file does
#[derive(clap::Args, Debug)]
#[command(
    after_help = "What a proxy cannot do stands as a comment where it would be. Instances are where --upstream says, or `at` of \
                  the file, or under the DNS names SERVICE-1, SERVICE-2 and so on, port 8080."
)]
pub(crate) struct Export {
    /// For which proxy
    #[arg(value_enum)]
    proxy: Proxy,
    /// The system file
    file: PathBuf,
    /// The gateway, where the file has several
    gateway: Option<String>,
    /// Where the gateway listens, in place of the file's `listen`
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Address>,
    /// Where a service's instances are, in place of the file's `at`, as in
    /// api=10.0.0.1:8080,10.0.0.2:8080; once a service
    #[arg(long, value_name = "SERVICE=ADDRESSES", value_parser = upstream)]
    upstream: Vec<Upstream>,
    /// Keep all files of nginx or HAProxy in this directory and run as whoever starts it [default:
    /// the places and the user of Debian's package]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<Directory>,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Proxies whose configuration can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Proxy {
    /// nginx, open source, as version 1.22 in Debian 12
    Nginx,
    /// HAProxy, as version 2.6 in Debian 12
    Haproxy,
    /// Envoy 1.25 or later, as a static bootstrap
    Envoy,
}

/// A service and the addresses of its instances.
#[derive(Clone, Debug)]
struct Upstream {
    service: String,
    addresses: Vec<Address>,
}

fn upstream(text: &str) -> Result<Upstream, String> {
    let expected = "expected a service and its addresses, such as api=10.0.0.1:8080,10.0.0.2:8080";
    let (service, addresses) = text.split_once('=').ok_or(expected)?;
    if service.is_empty() || addresses.is_empty() {
        return Err(expected.to_owned());
    }
    let addresses = addresses.split(',').map(str::parse).collect::<Result<_, _>>();
    addresses
        .map(|addresses| Upstream { service: service.to_owned(), addresses })
        .map_err(|error: plimsoll_export::Malformed| error.to_string())
}

impl Export {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        if self.proxy == Proxy::Envoy && self.directory.is_some() {
            bail!("--directory plays no part for Envoy, which keeps no files");
        }
        let file = SystemFile::open(Some(&self.file))?;
        let system = file.system()?;
        let site = self.site()?;
        let of_file = |error: plimsoll_export::Error| anyhow!("{}: {error}", file.name);
        let gateway = plimsoll_export::find(&system, self.gateway.as_deref()).map_err(of_file)?;
        let text = match self.proxy {
            Proxy::Nginx => plimsoll_export::nginx(&system, gateway, &site),
            Proxy::Haproxy => plimsoll_export::haproxy(&system, gateway, &site),
            Proxy::Envoy => plimsoll_export::envoy(&system, gateway, &site),
        }
        .map_err(of_file)?;
        match &self.output {
            None => print(&text)?,
            Some(path) => {
                write(path, &text)?;
                wrote(path);
            }
        }
        Ok(Exit::Held)
    }

    fn site(&self) -> anyhow::Result<Site> {
        let mut upstreams = BTreeMap::new();
        for Upstream { service, addresses } in &self.upstream {
            if upstreams.insert(service.clone(), addresses.clone()).is_some() {
                bail!("--upstream {service} is given twice: put all its addresses into one, with commas");
            }
        }
        Ok(Site {
            listen: self.listen.clone(),
            upstreams,
            files: self.directory.clone().map_or(Files::Package, Files::Directory),
            folder: self.folder(),
        })
    }

    /// Of the system file, where its path is one that configurations take; others only matter to a file that names
    /// certificates or a log.
    fn folder(&self) -> Option<Directory> {
        let path = std::fs::canonicalize(&self.file).ok()?;
        path.parent()?.to_str()?.parse().ok()
    }
}
