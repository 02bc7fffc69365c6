//! Two liner clients in one process, as liner's own benchmark has them. For each line on standard input the first one sends
//! a cycle of at-most-once messages to the second one; the milliseconds until the last one has come go to standard output.
//!
//!     liner-cycles POSTGRES_URL MESSAGES PAYLOAD_BYTES

use std::io::BufRead;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

use liner_broker::Liner;

const ADDRESSES: [&str; 2] = ["127.0.0.1:22771", "127.0.0.1:22782"];
const READY: &[u8] = b"ready";
const RETRY: Duration = Duration::from_millis(50);
const CYCLE_TIMEOUT: Duration = Duration::from_secs(30);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, messages, payload_bytes] = arguments.as_slice() else {
        eprintln!("liner-cycles POSTGRES_URL MESSAGES PAYLOAD_BYTES");
        std::process::exit(64);
    };
    let messages: usize = messages.parse().expect("MESSAGES is a number");
    let payload = vec![0u8; payload_bytes.parse().expect("PAYLOAD_BYTES is a number")];

    let mut sender = Liner::new_postgres("sender", "topic_sender", ADDRESSES[0], url);
    let mut receiver = Liner::new_postgres("receiver", "topic_receiver", ADDRESSES[1], url);
    let received = Arc::new(AtomicUsize::new(0));
    let (complete, completed) = mpsc::channel();
    let (connected, is_connected) = mpsc::channel();
    let counter = received.clone();
    assert!(sender.run(Box::new(|_, _, _| {})), "the sender does not run");
    assert!(
        receiver.run(Box::new(move |_, _, data| {
            if data == READY {
                let _ = connected.send(());
            } else if counter.fetch_add(1, Ordering::Relaxed) + 1 == messages {
                let _ = complete.send(Instant::now());
            }
        })),
        "the receiver does not run"
    );
    assert!(sender.refresh_address_topic("topic_receiver"), "the receiver has no address");
    // What is sent at most once before there is a connection is lost.
    while is_connected.recv_timeout(RETRY).is_err() {
        sender.send_to("topic_receiver", READY, false);
    }

    for line in std::io::stdin().lock().lines() {
        if line.is_err() {
            break;
        }
        received.store(0, Ordering::Relaxed);
        let began = Instant::now();
        for _ in 0..messages {
            assert!(sender.send_to("topic_receiver", &payload, false), "a message was refused");
        }
        let ended = completed.recv_timeout(CYCLE_TIMEOUT).expect("not all messages have come");
        println!("{}", ended.duration_since(began).as_secs_f64() * 1000.0);
    }
}
