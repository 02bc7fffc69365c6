//! Two liner clients in one process, as liner's own benchmark has them. For each line on standard input, such as
//! `at-most-once 1024 10000` (delivery, bytes of a message, messages), the first one sends a cycle to the second one; the
//! milliseconds until the last message has come go to standard output. 0 means that messages were lost; it ends then.
//! `ping-pong 100 5000 990` (bytes, times, permille) sends a message and another one back, at most once, so many times; that
//! percentile of the milliseconds is the answer.
//!
//!     liner-cycles POSTGRES_URL

use std::io::BufRead;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

use liner_broker::Liner;

const ADDRESSES: [&str; 2] = ["127.0.0.1:22771", "127.0.0.1:22782"];
const READY: &[u8] = b"ready";
const RETRY: Duration = Duration::from_millis(50);
/// Longer than liner takes to connect anew. What has not come by then has been lost.
const CYCLE_TIMEOUT: Duration = Duration::from_secs(12);
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(1);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url] = arguments.as_slice() else {
        eprintln!("liner-cycles POSTGRES_URL");
        std::process::exit(64);
    };

    let mut sender = Liner::new_postgres("sender", "topic_sender", ADDRESSES[0], url);
    let mut receiver = Liner::new_postgres("receiver", "topic_receiver", ADDRESSES[1], url);
    let left = Arc::new(AtomicUsize::new(0));
    let (complete, completed) = mpsc::channel();
    let (connected, is_connected) = mpsc::channel();
    let counter = left.clone();
    let one_by_one = Arc::new(AtomicBool::new(false));
    let is_one_by_one = one_by_one.clone();
    let (pinged, ping) = mpsc::channel();
    let (ponged, pong) = mpsc::channel();
    assert!(sender.run(Box::new(move |_, _, _| { let _ = ponged.send(()); })), "the sender does not run");
    assert!(
        receiver.run(Box::new(move |_, _, data| {
            if data == READY {
                let _ = connected.send(());
            } else if is_one_by_one.load(Ordering::Relaxed) {
                let _ = pinged.send(());
            } else if counter.fetch_sub(1, Ordering::Relaxed) == 1 {
                let _ = complete.send(Instant::now());
            }
        })),
        "the receiver does not run"
    );
    assert!(sender.refresh_address_topic("topic_receiver"), "the receiver has no address");
    assert!(receiver.refresh_address_topic("topic_sender"), "the sender has no address");
    // liner drops at-most-once messages until the connection exists.
    while is_connected.recv_timeout(RETRY).is_err() {
        sender.send_to("topic_receiver", READY, false);
    }

    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["ping-pong", bytes, times, permille] = words.as_slice() {
            let payload = vec![0u8; bytes.parse().expect("BYTES is a number")];
            let times: usize = times.parse().expect("TIMES is a number");
            let permille: usize = permille.parse().expect("PERMILLE is a number");
            one_by_one.store(true, Ordering::Relaxed);
            // liner drops messages until the connection back exists.
            loop {
                sender.send_to("topic_receiver", &payload, false);
                if ping.recv_timeout(RETRY).is_ok() {
                    receiver.send_to("topic_sender", &payload, false);
                    if pong.recv_timeout(RETRY).is_ok() {
                        break;
                    }
                }
            }
            let mut took = Vec::with_capacity(times);
            while took.len() < times {
                let began = Instant::now();
                sender.send_to("topic_receiver", &payload, false);
                let came = ping.recv_timeout(EXCHANGE_TIMEOUT).is_ok();
                if came {
                    receiver.send_to("topic_sender", &payload, false);
                }
                if came && pong.recv_timeout(EXCHANGE_TIMEOUT).is_ok() {
                    took.push(began.elapsed());
                    continue;
                }
                // Lost, or late: not counted.
                std::thread::sleep(EXCHANGE_TIMEOUT);
                while ping.try_recv().is_ok() || pong.try_recv().is_ok() {}
            }
            one_by_one.store(false, Ordering::Relaxed);
            took.sort();
            println!("{}", took[(times - 1) * permille / 1000].as_secs_f64() * 1000.0);
            continue;
        }
        let [delivery, bytes, messages] = words.as_slice() else {
            panic!("a line is DELIVERY BYTES MESSAGES, not {line:?}");
        };
        let at_least_once = *delivery == "at-least-once";
        let payload = vec![0u8; bytes.parse().expect("BYTES is a number")];
        let messages: usize = messages.parse().expect("MESSAGES is a number");
        left.store(messages, Ordering::Relaxed);
        let began = Instant::now();
        for _ in 0..messages {
            assert!(sender.send_to("topic_receiver", &payload, at_least_once), "a message was refused");
        }
        let Ok(ended) = completed.recv_timeout(CYCLE_TIMEOUT) else {
            println!("0");
            std::process::exit(0);
        };
        println!("{}", ended.duration_since(began).as_secs_f64() * 1000.0);
    }
}
