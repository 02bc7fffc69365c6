"""A worker of the queue with psycopg 3, after docs/store-protocol.md: it adds a row to `effects` for each message, exactly once."""
import os, signal, sys, threading, time, psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

URL, LEASE_MS = os.environ["HAWSER_DATABASE_URL"], int(os.environ.get("LEASE_MS", 10_000))
TOPIC, ATTEMPTS, stopped, worker = sys.argv[1], 5, threading.Event(), None

def handle(connection, message):
    connection.execute("INSERT INTO effects (text, key) VALUES (%s, %s)", (message.payload.decode(), message.key))

def beat(worker, lost):
    try:
        with psycopg.connect(URL, autocommit=True) as connection:
            while not lost.wait(LEASE_MS / 4000):
                connection.execute("SELECT hawser.extend(%s, false)", (worker,))
    finally:
        lost.set()  # Another worker may have what this one had.

def attempt(session, handlers, worker, message):  # Returns the ranks of messages that the worker does not have any more.
    place = (message.topic, message.recipient, message.role, message.rank)
    try:
        with handlers.transaction():
            handle(handlers, message)
            handlers.execute("SELECT hawser.done(%s, %s, %s, %s, false)", place)
    except Exception as error:
        if isinstance(error, psycopg.OperationalError) or getattr(error, "sqlstate", None) == "NA009":
            raise  # The outcome is not known, or another worker has the message.
        if message.attempts + 1 < ATTEMPTS:
            return session.execute("SELECT hawser.retry(%s, %s, %s, %s, %s, 1000, NULL)", (worker, *place)).fetchone()[0]
        session.execute("SELECT hawser.give_up(%s, %s, %s, %s, %s, 'failed', %s, '{}', NULL)", (worker, *place, str(error)[:2000]))
    return [message.rank]

def begins(session, worker, message, others):  # Of a suspect, and of each last attempt, the start is told; that of a suspect runs alone.
    place, is_last = (message.topic, message.recipient, message.role, message.rank), message.attempts + 1 >= ATTEMPTS
    if message.was_running and message.attempts >= ATTEMPTS:
        session.execute("SELECT hawser.give_up(%s, %s, %s, %s, %s, 'handler_crashed', 'it ends its process', NULL, NULL)", (worker, *place))
        return False
    if message.is_suspect and is_last and others:
        columns = list(zip(*((row.topic, row.recipient, row.role, row.rank) for row in others.values())))
        [others.pop(rank, None) for rank in session.execute("SELECT hawser.give_back(%s, %s, %s, %s, %s, false)", (worker, *map(list, columns))).fetchone()[0]]
    if message.is_suspect or is_last:
        return session.execute("SELECT hawser.begin(%s, %s, %s, %s, %s)", (worker, *([value] for value in place))).fetchone()[0] != []
    return True

def work(session, handlers, worker, lost, after, looked=0):
    while not lost.is_set():
        taken = session.execute("SELECT * FROM hawser.take(%s, 50, 10000000, %s, '{}')", (worker, Jsonb(after)))
        rows = [row for row in taken if row.wait_ms is None]  # Others tell of limits.
        [after.setdefault(row.topic, {}).setdefault(row.recipient, {}).update({row.role: row.rank}) for row in rows if row.payload is None]
        held = {row.rank: row for row in rows if row.payload is not None}
        while held and not lost.is_set():
            message = held.pop(min(held))
            if begins(session, worker, message, held):
                [held.pop(rank, None) for rank in attempt(session, handlers, worker, message)]
        rows or next(session.notifies(timeout=1, stop_after=1), None)
        if not rows or time.monotonic() - looked > 1:
            after, looked = {}, time.monotonic()  # It looks at all messages again.

while not stopped.is_set():
    lost = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: (stopped.set(), lost.set()))
    try:
        with psycopg.connect(URL, autocommit=True, row_factory=namedtuple_row) as session, psycopg.connect(URL) as handlers:
            session.execute("LISTEN hawser_queue")
            session.execute("SELECT hawser.wait_for(%s)", ([TOPIC],))
            worker = session.execute("SELECT hawser.open_worker('python', %s, NULL, %s, 1, %s)", ([TOPIC], LEASE_MS, worker)).fetchone()[0]
            threading.Thread(target=beat, args=(worker, lost), daemon=True).start()
            work(session, handlers, worker, lost, {})
            session.execute("SELECT hawser.close_worker(%s)", (worker,))
    except psycopg.Error as error:
        print(error, file=sys.stderr)
        lost.set() or stopped.wait(0.5)
