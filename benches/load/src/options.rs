//! What is said on the command line.

pub const HELP: &str = "\
Options:
  --oha PATH       oha [default: the one on PATH]
  --plimsoll PATH  plimsoll [default: it is built as it is released]
  --before PATH    another plimsoll, such as one from before a change, that takes turns with the rest
  --rates LIST     requests a second [default: 2000,10000,20000]
  --seconds N      how long each generator runs at each rate in a round [default: 5]
  --rounds N       rounds [default: 5]
  --quick          one round of 2 s
  --help           this";

/// What is said on the command line.
pub struct Options {
    pub oha: String,
    pub plimsoll: Option<String>,
    pub before: Option<String>,
    pub rates: Vec<u32>,
    pub seconds: u32,
    pub rounds: usize,
}

impl Options {
    /// None where help is asked for.
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
        let mut options = Options {
            oha: "oha".to_owned(),
            plimsoll: None,
            before: None,
            rates: vec![2_000, 10_000, 20_000],
            seconds: 5,
            rounds: 5,
        };
        let mut arguments = arguments;
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{option} takes a value"));
            match option.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => (options.seconds, options.rounds) = (2, 1),
                "--oha" => options.oha = value()?,
                "--plimsoll" => options.plimsoll = Some(value()?),
                "--before" => options.before = Some(value()?),
                "--rates" => options.rates = value()?.split(',').map(number).collect::<Result<_, _>>()?,
                "--seconds" => options.seconds = number(&value()?)?,
                "--rounds" => options.rounds = number(&value()?)? as usize,
                _ => return Err(format!("there is no option {option}")),
            }
        }
        Ok(Some(options))
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{text} is not a whole number from 1")),
    }
}
