/**
 * A worker in Go, written after docs/store-protocol.md, with four handlers at a time: a message that kills it is given up after as many
 * starts as it allows, and none of those beside it. Only where Go is; pgx comes from the Go module proxy.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { expect, it } from "vitest";
import { login } from "../installation/support/logins.js";
import { run } from "../package/pack.js";
import { enqueue } from "../queue/support/test-worker.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { temporaryDirectory } from "../support/temporary.js";

const hasGo = spawnSync("go", ["version"]).status === 0;

const program = `package main

import (
	"context"
	"log"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const attempts, atOnce, leaseMs = 5, 4, 500

type message struct {
	topic, recipient, role string
	rank                     int64
	payload                []byte
	attempts               int
	isSuspect, wasRunning  bool
}

var ctx, pool = context.Background(), (*pgxpool.Pool)(nil)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func handle(m message) {
	if string(m.payload) == "kills" {
		_, err := pool.Exec(ctx, "INSERT INTO starts VALUES ('kills')")
		check(err)
		check(syscall.Kill(os.Getpid(), syscall.SIGKILL))
	}
	check(pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO effects (text) SELECT $1 FROM pg_sleep(0.3)", string(m.payload)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT hawser.done($1, $2, $3, $4, false)", m.topic, m.recipient, m.role, m.rank)
		return err
	}))
}

func call(sql string, worker int64, ms []message) (ids []int64) {
	var topics, recipients, roles []string
	var given []int64
	for _, m := range ms {
		topics, recipients, roles, given = append(topics, m.topic), append(recipients, m.recipient), append(roles, m.role), append(given, m.rank)
	}
	check(pool.QueryRow(ctx, sql, worker, topics, recipients, roles, given).Scan(&ids))
	return ids
}

func take(worker int64) (held []message) {
	rows, err := pool.Query(ctx, "SELECT topic, recipient, role, rank, payload, coalesce(attempts, 0), coalesce(is_suspect, false), coalesce(was_running, false) FROM hawser.take($1, 50, 1000000, '{}', '{}') WHERE payload IS NOT NULL", worker)
	check(err)
	held, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (m message, err error) {
		return m, row.Scan(&m.topic, &m.recipient, &m.role, &m.rank, &m.payload, &m.attempts, &m.isSuspect, &m.wasRunning)
	})
	check(err)
	return held
}

func main() {
	var err error
	pool, err = pgxpool.New(ctx, os.Getenv("HAWSER_DATABASE_URL"))
	check(err)
	var worker int64
	check(pool.QueryRow(ctx, "SELECT hawser.open_worker('go', $1, NULL, $2, $3, NULL)", []string{os.Args[1]}, leaseMs, atOnce).Scan(&worker))
	go func() {
		for range time.Tick(leaseMs / 4 * time.Millisecond) {
			_, err := pool.Exec(ctx, "SELECT hawser.extend($1, false)", worker)
			check(err)
		}
	}()
	var running sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for {
		held := take(worker)
		for len(held) > 0 {
			m := held[0]
			held = held[1:]
			isLast := m.attempts+1 >= attempts
			if m.wasRunning && m.attempts >= attempts {
				_, err := pool.Exec(ctx, "SELECT hawser.give_up($1, $2, $3, $4, $5, 'handler_crashed', 'it ends its process', NULL, NULL)", worker, m.topic, m.recipient, m.role, m.rank)
				check(err)
				continue
			}
			isAlone := m.isSuspect && isLast
			if isAlone {
				if len(held) > 0 {
					call("SELECT hawser.give_back($1, $2, $3, $4, $5, false)", worker, held)
				}
				held = nil
				running.Wait()
			}
			slots <- struct{}{}
			if (m.isSuspect || isLast) && len(call("SELECT hawser.begin($1, $2, $3, $4, $5)", worker, []message{m})) == 0 {
				<-slots
				continue
			}
			running.Add(1)
			go func() {
				defer running.Done()
				handle(m)
				<-slots
			}()
			if isAlone {
				running.Wait()
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}
`;

it.runIf(hasGo)(
  "gives up a message that kills it, and none of those that run beside it",
  { timeout: 600_000 },
  async () => {
    const folder = temporaryDirectory();
    const built = join(folder, "worker");
    const inGo = (...args: string[]): Promise<string> => run("go", args, folder, { GOFLAGS: "-mod=mod" });
    writeFileSync(join(folder, "go.mod"), "module example.com/worker\n\ngo 1.24\n");
    writeFileSync(join(folder, "main.go"), program);
    await inGo("get", "github.com/jackc/pgx/v5@v5.7.6");
    await inGo("mod", "tidy");
    await inGo("build", "-o", built, ".");
    await using database = await testDatabase({ nats: false });
    await using role = await login(database.url, "IN ROLE hawser_peer");
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    await client.query(
      "CREATE TABLE effects (text text); CREATE TABLE starts (text text); GRANT ALL ON effects, starts TO PUBLIC",
    );
    let child: ChildProcess | undefined;
    let isOver = false;
    const start = () => {
      const env = { ...process.env, HAWSER_DATABASE_URL: role.url };
      child = spawn(built, ["t"], { env, stdio: "ignore" });
      child.on("exit", () => isOver || start());
    };
    const texts = Array.from({ length: 12 }, (_, n) => `innocent ${n}`.padEnd(12));
    try {
      await enqueue(client, "t", [...texts.slice(0, 3), "kills", ...texts.slice(3)]);
      start();
      const isEmpty = async () => (await client.query("SELECT FROM hawser_data.queue")).rows.length === 0;
      await eventually("nothing is left", isEmpty, 120_000);
      const { rows } = await client.query<{ text: string }>("SELECT text FROM effects");
      expect(rows.map(({ text }) => text).toSorted()).toEqual(texts.toSorted());
      expect((await client.query("SELECT FROM starts")).rows).toHaveLength(5);
      const dead = "SELECT convert_from(payload, 'UTF8') AS text, error_code, attempts FROM hawser_data.dead_letters";
      expect((await client.query(dead)).rows).toEqual([{ text: "kills", error_code: "handler_crashed", attempts: 5 }]);
    } finally {
      isOver = true;
      child?.kill("SIGKILL");
      await client.end();
    }
  },
);
