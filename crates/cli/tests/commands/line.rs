use crate::{Folder, QUICK};

fn line(folder: &Folder, more: &[&str]) -> crate::Ended {
    folder.run(["line", "small.yaml"].iter().chain(&QUICK).chain(more))
}

#[test]
fn the_line_of_a_system_is_found() {
    let folder = Folder::small();
    let ended = line(&folder, &["--json", "line"]).with(0);
    let result = folder.json("line");
    let marks = result["marks"].as_array().unwrap();
    let weathers: Vec<&str> = marks.iter().map(|mark| mark["weather"]["name"].as_str().unwrap()).collect();
    assert_eq!(weathers, ["calm", "instance lost", "rolling deploy"]);
    for mark in marks {
        // Four cores and 20 ms a request: no more than 200 a second, and not far below in any
        // weather, which is judged against what the survivors can do.
        let load = mark["load"].as_f64().unwrap();
        assert!((100.0..=200.0).contains(&load), "{}: {load}", mark["weather"]["name"]);
        assert!(ended.out.contains(mark["weather"]["name"].as_str().unwrap()));
    }
    assert_eq!((&result["load_unit"], &result["today"]), (&"requests_per_s".into(), &20.0.into()));
    assert_eq!(result["today_per_s"], 20.0);
    assert_eq!(result["partial"], false);
}

/// The load of a closed loop is its users: how often they ask is a result.
#[test]
fn users_are_counted_as_users() {
    let folder = Folder::small();
    let text = folder.read("small.yaml");
    let closed = text.replace("rate: 20/s", "users: 20\n    think: 1s").replace("    load: { web: 500/s }\n", "");
    assert_ne!(text, closed);
    folder.write("small.yaml", closed);
    let ended = line(&folder, &["--weather", "calm", "--json", "line"]).with(0);
    let result = folder.json("line");
    assert_eq!((&result["load_unit"], &result["today"]), (&"users".into(), &20.0.into()));
    assert_eq!(result["today_open_per_s"], 0.0);
    // 20 users of a second's thought and a little work.
    let today = result["today_per_s"].as_f64().unwrap();
    assert!((15.0..20.0).contains(&today), "{today}");
    // 200/s at most, of users who think for a second and wait for a while.
    let mark = &result["marks"][0];
    let (users, requests) = (mark["load"].as_f64().unwrap(), mark["requests_per_s"].as_f64().unwrap());
    assert!((100.0..250.0).contains(&users) && requests < users && requests > 0.6 * users, "{users}: {requests}/s");
    assert!(ended.out.contains("today 20 users, "), "{}", ended.out);
    assert!(ended.out.contains("requests a second"), "{}", ended.out);
    line(&folder, &["--weather", "calm", "--require", "20"]).with(1);
}

/// A table that fills within a minute is not seen in 20 s: the quiet run sees it, and says so.
#[test]
fn what_comes_with_time_is_named() {
    let folder = Folder::small();
    let keys = "    idempotency: { max_keys: 8k }\n    endpoints:\n      POST /:";
    let text =
        folder.read("small.yaml").replace("    endpoints:\n      GET /:", keys).replace("api GET /", "api POST /");
    folder.write("small.yaml", text);
    let arguments =
        ["--precision", "20%", "--replications", "2", "--horizon", "5", "--weather", "calm", "--json", "line"];
    folder.run(["line", "small.yaml"].iter().chain(&arguments)).with(0);
    let mark = folder.json("line")["marks"][0].clone();
    // 8,000 keys last for the two minutes of the longest stretch at 71/s.
    assert!((40.0..80.0).contains(&mark["load"].as_f64().unwrap()), "{}", mark["load"]);
    assert!(mark["fails"].as_str().unwrap().ends_with(" s without a fault"), "{}", mark["fails"]);
    assert!(mark["first"]["why"].as_str().unwrap().contains("table of idempotency keys"), "{}", mark["first"]);
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let folder = Folder::small();
    let run = |name: &str, more: &[&str]| {
        let names = [name.to_owned(), format!("{name}.html"), format!("{name}.svg"), format!("{name}.xml")];
        let mut arguments = more.to_vec();
        for (option, name) in ["--json", "--html", "--svg", "--junit"].iter().zip(&names) {
            arguments.extend([option, name.as_str()]);
        }
        let ended = line(&folder, &arguments).with(0);
        (ended.out, names.map(|name| folder.read(&name)))
    };
    let one = run("one", &["--threads", "1"]);
    assert!(one == run("two", &["--threads", "2"]), "two threads");
    assert!(one == run("seven", &["--threads", "7"]), "seven threads");
    assert!(one.1[0] != run("other", &["--seed", "2"]).1[0], "another seed");
}

#[test]
fn a_requirement_decides_the_exit_code() {
    let folder = Folder::small();
    line(&folder, &["--require", "2"]).with(0);
    line(&folder, &["--require", "2x"]).with(0);
    line(&folder, &["--require", "50"]).with(1);
}

#[test]
fn weathers_are_chosen_by_name() {
    let folder = Folder::small();
    let chosen = |more: &[&str]| {
        line(&folder, &[more, &["--json", "line"]].concat()).with(0);
        let marks = folder.json("line")["marks"].clone();
        let names = marks.as_array().unwrap().iter().map(|mark| mark["weather"]["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["--weather", "calm"]), ["calm"]);
    assert_eq!(chosen(&["--weather", "rolling deploy"]), ["calm", "rolling deploy"]);
    assert_eq!(chosen(&["--weather", "steady", "--weather", "instance lost"]), ["calm", "steady", "instance lost"]);
    line(&folder, &["--weather", "hail"])
        .refused("expected one of: calm, instance lost, rolling deploy, steady, overload");
}

/// An experiment may bear the name of a weather, and is meant by it.
#[test]
fn the_names_of_the_file_come_first() {
    let folder = Folder::small();
    folder.write("small.yaml", folder.read("small.yaml").replacen("steady", "calm", 1));
    line(&folder, &["--weather", "calm", "--json", "line"]).with(0);
    let marks = folder.json("line")["marks"].clone();
    let kinds: Vec<&str> = marks.as_array().unwrap().iter().map(|m| m["weather"]["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["calm", "experiment"]);
    let error = line(&folder, &["--weather", "hail"]).with(2).err;
    assert_eq!(error.matches("calm").count(), 1, "{error}");
}

#[test]
fn growth_repeats_the_search() {
    let folder = Folder::small();
    let text = folder.read("small.yaml");
    folder.write("small.yaml", format!("{text}growth:\n  api.instances: linear\n"));
    line(&folder, &["--weather", "calm", "--grow", "2", "--json", "line"]).with(0);
    let result = folder.json("line");
    let grown = &result["growth"][0];
    assert_eq!(grown["factor"], 2.0);
    assert!(grown["changes"].to_string().contains("instances"), "{}", grown["changes"]);
    let (before, after) = (&result["marks"][0]["load"], &grown["marks"][0]["load"]);
    let ratio = after.as_f64().unwrap() / before.as_f64().unwrap();
    assert!((1.5..3.0).contains(&ratio), "twice the instances carry {ratio} times the load");
}

#[test]
fn files_are_what_their_names_say() {
    let folder = Folder::small();
    let files = ["--html", "l.html", "--svg", "l.svg", "--junit", "l.xml", "--weather", "calm"];
    let ended = line(&folder, &files).with(0);
    assert!(folder.read("l.html").starts_with("<!"));
    assert!(folder.read("l.svg").contains("<svg"));
    assert!(folder.read("l.xml").contains("<testsuite"));
    assert_eq!(ended.err, "wrote l.html\nwrote l.xml\nwrote l.svg\n");
    // Nothing is fetched from elsewhere when the page is opened.
    let page = folder.read("l.html");
    for loader in ["src=\"http", "href=\"http", "url(http", "@import"] {
        assert!(!page.contains(loader), "{loader}");
    }
}
