//! Several processes on one file: this test program, started again as a puppet that does what it is told.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

const ROLE: &str = "LONGSHORE_LOCAL_PUPPET";

/// A source in another process.
struct Puppet {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Puppet {
    fn start(url: &Url) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "transport::local::tests::processes::puppet", "--nocapture", "--test-threads=1"])
            .env(ROLE, url.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // The test harness prints before the puppet does, on the same line.
                if let Some((_, said)) = line.split_once("@ ") {
                    let _ = tell.send(said.to_owned());
                }
            }
        });
        let puppet = Self { child, lines };
        assert_eq!(puppet.hear(), "connected");
        puppet
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    fn hear(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the puppet says something in time")
    }

    /// Waits for a line that begins so; the rest of it.
    fn hear_of(&self, begin: &str) -> String {
        loop {
            if let Some(rest) = self.hear().strip_prefix(begin) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Payloads of the next batch.
    fn batch(&self) -> Vec<String> {
        self.hear_of("batch").split(' ').map(str::to_owned).collect()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does nothing unless it was started by [`Puppet::start`].
#[test]
fn puppet() {
    let Ok(url) = std::env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(play(Url::parse(&url).unwrap()));
}

async fn play(url: Url) {
    let (told, mut orders) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = told.send(line);
        }
    });
    let mut reader = Reader::open(&Local::default(), &url, &spec()).await;
    let mut held = Vec::new();
    loop {
        tokio::select! {
            event = reader.source.next() => match event {
                Event::Connected => println!("@ connected"),
                Event::Batch(slab) => {
                    held.extend(slab.heads().iter().map(|head| head.at));
                    let payloads: Vec<_> =
                        slab.iter().map(|one| String::from_utf8_lossy(one.payload().unwrap()).into_owned()).collect();
                    println!("@ batch {}", payloads.join(" "));
                }
                Event::Settled { proven, stale, .. } => println!("@ settled {} stale {}", proven.acked, stale.acked),
                Event::Lost(ownership) => println!("@ lost {}", ownership.epoch),
                Event::Closed { returned, .. } => {
                    println!("@ closed {returned}");
                    return;
                }
                other => println!("@ {other:?}"),
            },
            order = orders.recv() => match order.as_deref() {
                Some("settle") => reader.settle(std::mem::take(&mut held), Verdict::Acked),
                Some("close") => reader.source.tell(Ask::Close { by: Instant::now() + PATIENCE }),
                Some(demand) => {
                    reader.source.tell(Ask::Demand { messages: demand.parse().unwrap(), bytes: 1 << 20 });
                }
                // Whoever started it is gone.
                None => return,
            },
        }
    }
}

fn store() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    (folder, path)
}

fn keyed(all: &[(&str, &str)]) -> Vec<Message> {
    all.iter().map(|(key, payload)| Message::new(payload.to_string()).with_key(key.to_string())).collect()
}

#[tokio::test]
async fn a_killed_owner_frees_its_claims_at_once() {
    let (_folder, path) = store();
    let local = Local::default();
    let url = url(&path, "queue=q&claim=1h");
    publish(&local, &url, numbered(0..6)).await;
    let mut puppet = Puppet::start(&url);
    puppet.tell("4");
    assert_eq!(puppet.batch(), ["0", "1", "2", "3"]);
    let mut reader = Reader::open(&local, &url, &spec()).await;
    let rest = reader.take(2).await;
    assert_eq!(texts(&rest), ["4", "5"], "what another owner holds is left alone");
    puppet.signal(rustix::process::Signal::KILL);
    let got = reader.take(4).await;
    assert_eq!(texts(&got), ["0", "1", "2", "3"], "in their old order");
    reader.settle(ats(&got).into_iter().chain(ats(&rest)), Verdict::Acked);
    assert_eq!(reader.flush().await, (acked(6), Tally::default()));
    let files = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let owners = files.filter(|file| file.as_ref().unwrap().file_name().to_str().unwrap().contains("-owner-")).count();
    assert_eq!(owners, 1, "its file is gone");
}

#[tokio::test]
async fn a_stopped_owner_expires_and_what_it_settles_late_is_stale() {
    let (_folder, path) = store();
    let local = Local::default();
    let url = url(&path, "queue=q&claim=2s");
    publish(&local, &url, numbered(0..3)).await;
    let mut puppet = Puppet::start(&url);
    puppet.tell("3");
    assert_eq!(puppet.batch(), ["0", "1", "2"]);
    puppet.signal(rustix::process::Signal::STOP);
    let mut reader = Reader::open(&local, &url, &spec()).await;
    let got = reader.take(3).await;
    assert_eq!(texts(&got), ["0", "1", "2"]);
    puppet.tell("settle");
    puppet.signal(rustix::process::Signal::CONT);
    // It may notice by its renewal, before it hears that it shall settle.
    let mut said = [puppet.hear(), puppet.hear()];
    said.sort();
    assert_eq!(said, ["lost 1", "settled 0 stale 3"]);
    reader.settle(ats(&got), Verdict::Acked);
    assert_eq!(reader.flush().await, (acked(3), Tally::default()));
    publish(&local, &url, numbered(3..4)).await;
    puppet.tell("1");
    assert_eq!(puppet.batch(), ["3"], "it goes on under a new epoch");
    puppet.tell("settle");
    assert_eq!(puppet.hear_of("settled"), "1 stale 0");
}

#[tokio::test]
async fn a_live_owner_keeps_its_claims_beyond_their_time_by_renewing_them() {
    let (_folder, path) = store();
    let local = Local::default();
    let url = url(&path, "queue=q&claim=1s");
    publish(&local, &url, numbered(0..2)).await;
    let mut puppet = Puppet::start(&url);
    puppet.tell("1");
    assert_eq!(puppet.batch(), ["0"]);
    let mut reader = Reader::open(&local, &url, &spec()).await;
    assert_eq!(texts(&reader.take(1).await), ["1"]);
    reader.source.tell(Ask::Demand { messages: 1, bytes: 1 << 20 });
    let stolen = tokio::time::timeout(Duration::from_millis(2_500), reader.source.next()).await;
    assert!(stolen.is_err(), "{stolen:?}");
    puppet.tell("settle");
    assert_eq!(puppet.hear_of("settled"), "1 stale 0");
}

#[tokio::test]
async fn a_key_that_another_process_holds_is_stepped_over_until_it_is_settled() {
    let (_folder, path) = store();
    let local = Local::default();
    let url = url(&path, "queue=q");
    publish(&local, &url, keyed(&[("a", "a1"), ("b", "b1"), ("a", "a2"), ("c", "c1"), ("b", "b2"), ("a", "a3")])).await;
    let mut puppet = Puppet::start(&url);
    puppet.tell("1");
    assert_eq!(puppet.batch(), ["a1"]);
    let mut reader = Reader::open(&local, &url, &spec()).await;
    assert_eq!(texts(&reader.take(3).await), ["b1", "c1", "b2"]);
    reader.source.tell(Ask::Demand { messages: 5, bytes: 1 << 20 });
    reader.flush().await;
    puppet.tell("settle");
    assert_eq!(puppet.hear_of("settled"), "1 stale 0");
    assert_eq!(texts(&reader.take(2).await), ["a2", "a3"]);
    puppet.tell("5");
    puppet.tell("close");
    assert_eq!(puppet.hear_of("closed"), "0", "every key is with the other one");
}

#[tokio::test]
async fn another_process_sees_a_new_message_soon() {
    let (_folder, path) = store();
    let url = url(&path, "queue=q");
    let mut puppet = Puppet::start(&url);
    puppet.tell("10");
    for number in 0..5 {
        publish(&Local::default(), &url, numbered(number..number + 1)).await;
        assert_eq!(puppet.batch(), [number.to_string()]);
    }
    puppet.tell("close");
    assert_eq!(puppet.hear_of("closed"), "5");
}

/// Three processes by key: one is killed, one is stopped for good, and nothing is lost.
#[tokio::test]
async fn with_one_of_three_killed_and_one_stopped_every_message_is_handled_in_order_by_key() {
    let (_folder, path) = store();
    let local = Local::default();
    let url = url(&path, "queue=q&claim=2s");
    let all = (0..300).map(|number| Message::new(number.to_string()).with_key(format!("k{}", number % 11)));
    publish(&local, &url, all).await;
    let mut killed = Puppet::start(&url);
    let mut stopped = Puppet::start(&url);
    let mut handled = std::collections::BTreeSet::new();
    for puppet in [&mut killed, &mut stopped] {
        // The first may get every key: then the other gets the rest once the first has settled.
        puppet.tell("5");
        let done = puppet.batch();
        puppet.tell("settle");
        assert_eq!(puppet.hear_of("settled"), format!("{} stale 0", done.len()));
        handled.extend(done.iter().map(|one| one.parse::<u32>().unwrap()));
        puppet.tell("5");
        puppet.batch();
    }
    killed.signal(rustix::process::Signal::KILL);
    stopped.signal(rustix::process::Signal::STOP);
    let mut reader = Reader::open(&local, &url, &spec()).await;
    while handled.len() < 300 {
        reader.source.tell(Ask::Demand { messages: 64, bytes: 1 << 20 });
        let slab = reader.wait(|event| if let Event::Batch(slab) = event { Some(slab) } else { None }).await;
        for message in slab.iter() {
            let number: u32 = std::str::from_utf8(message.payload().unwrap()).unwrap().parse().unwrap();
            assert!((0..number).filter(|before| before % 11 == number % 11).all(|before| handled.contains(&before)));
            assert!(handled.insert(number), "{number} was settled by its owner");
        }
        reader.settle(slab.heads().iter().map(|head| head.at), Verdict::Acked);
    }
    reader.flush().await;
    let seen = local.inspect(&url, "app").await.unwrap();
    assert_eq!((seen.lag, seen.dead), (Some(0), Some(0)));
}

#[tokio::test]
async fn two_processes_that_make_one_store_at_once_use_the_same() {
    let (_folder, path) = store();
    let url = url(&path, "queue=q");
    let puppets: Vec<Puppet> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(|| Puppet::start(&url))).collect();
        starting.into_iter().map(|one| one.join().unwrap()).collect()
    });
    publish(&Local::default(), &url, numbered(0..4)).await;
    for (number, mut puppet) in puppets.into_iter().enumerate() {
        puppet.tell("1");
        assert_eq!(puppet.batch(), [number.to_string()]);
        puppet.tell("settle");
        assert_eq!(puppet.hear_of("settled"), "1 stale 0");
    }
}
