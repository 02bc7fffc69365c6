import { chmodSync, existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { identityOf } from "../../src/development/dev/index.js";
import { filesOf, ownerOfRun, removeLeftovers } from "../../src/development/testing/run.js";
import { temporaryDirectory } from "../support/temporary.js";

afterEach(() => {
  vi.unstubAllEnvs();
});

describe("the runner of a process", () => {
  it("is what the global set-up says", () => {
    vi.stubEnv("HAWSER_TEST_RUN", "1");
    expect(ownerOfRun().pid).toBe(1);
  });

  it("is the parent of a worker of vitest, as here", () => {
    expect(ownerOfRun().pid).toBe(process.ppid);
  });

  it("is the parent of a process that node:test has started for a file", () => {
    vi.stubEnv("VITEST_WORKER_ID", undefined);
    expect(ownerOfRun().pid).toBe(process.pid);
    vi.stubEnv("NODE_TEST_CONTEXT", "child-v8");
    expect(ownerOfRun().pid).toBe(process.ppid);
  });
});

describe("the files of a run", () => {
  it("are this user's alone, and short enough for a socket", () => {
    const root = temporaryDirectory();
    vi.stubEnv("TMPDIR", root);
    const { socket, log } = filesOf(identityOf());
    expect(statSync(dirname(socket)).mode & 0o777).toBe(0o700);
    expect(socket.length - root.length).toBeLessThan(55);
    expect(log).toBe(socket.replace(".sock", ".log"));
    expect(filesOf({ ...identityOf(), startedAt: "another" }).socket).not.toBe(socket);
  });

  it("are not put where others can write", () => {
    vi.stubEnv("TMPDIR", temporaryDirectory());
    const directory = dirname(filesOf(identityOf()).socket);
    chmodSync(directory, 0o777);
    expect(() => filesOf(identityOf())).toThrow(`The directory ${directory} is accessible to other users`);
  });

  it("go with the next run where their keeper was killed", () => {
    vi.stubEnv("TMPDIR", temporaryDirectory());
    const own = filesOf(identityOf());
    const dead = filesOf({ ...identityOf(), startedAt: "long ago" });
    mkdirSync(dirname(own.socket), { recursive: true });
    const foreign = join(dirname(own.socket), "notes.txt");
    for (const file of [own.log, dead.log, dead.socket, foreign]) writeFileSync(file, "");
    removeLeftovers();
    expect([own.log, dead.log, dead.socket, foreign].filter((file) => existsSync(file))).toEqual([own.log, foreign]);
  });
});
