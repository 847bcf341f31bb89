//! One command on a connection of its own, in Redis' protocol (RESP 2).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The longest text that is taken.
const MOST: usize = 64 << 20;

/// What a server answers, or the error that it answers with.
pub(super) fn ask(at: SocketAddr, command: &[&str], patience: Duration) -> io::Result<Result<String, String>> {
    let mut stream = TcpStream::connect_timeout(&at, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut request = format!("*{}\r\n", command.len());
    for word in command {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(request.as_bytes())?;
    answer(&mut BufReader::new(stream))
}

fn answer(from: &mut impl BufRead) -> io::Result<Result<String, String>> {
    let mut line = Vec::new();
    from.take(MOST as u64).read_until(b'\n', &mut line)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let strange = || io::Error::new(io::ErrorKind::InvalidData, format!("not an answer: {line:?}"));
    let text = line.strip_suffix("\r\n").ok_or_else(strange)?;
    let (kind, rest) = text.split_at_checked(1).ok_or_else(strange)?;
    match kind {
        "+" | ":" => Ok(Ok(rest.to_owned())),
        "-" => Ok(Err(rest.to_owned())),
        "$" if rest == "-1" => Ok(Ok(String::new())),
        "$" => {
            let length = rest.parse::<usize>().ok().filter(|length| *length <= MOST).ok_or_else(strange)?;
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(Ok(String::from_utf8_lossy(&bytes).into_owned()))
        }
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_strange_ones_refused() {
        let read = |text: &str| answer(&mut text.as_bytes()).map_err(|error| error.kind());
        assert_eq!(read("+OK\r\n"), Ok(Ok("OK".to_owned())));
        assert_eq!(read(":42\r\n"), Ok(Ok("42".to_owned())));
        assert_eq!(read("-ERR no\r\n"), Ok(Err("ERR no".to_owned())));
        assert_eq!(read("$4\r\na\r\nb\r\n"), Ok(Ok("a\r\nb".to_owned())));
        assert_eq!(read("$-1\r\n"), Ok(Ok(String::new())));
        for strange in ["", "\r\n", "OK\r\n", "+OK", "$x\r\n", "$99999999999\r\n", "*1\r\n:1\r\n"] {
            assert_eq!(read(strange), Err(io::ErrorKind::InvalidData), "{strange:?}");
        }
        assert_eq!(read("$4\r\nab"), Err(io::ErrorKind::UnexpectedEof));
    }
}
