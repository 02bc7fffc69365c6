/**
 * A disk for Postgres that can be full. Who may mount (root, mostly) has a tmpfs, filled by a file: writes fail with
 * ENOSPC. Others limit the size of the server's files instead (RLIMIT_FSIZE, by util-linux's prlimit): writes fail with
 * EFBIG, which Postgres treats the same, with the same hint.
 */
import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmdirSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serverAccount } from "../../../src/development/dev/server-process.js";
import type { OwnPostgres } from "./own-postgres.js";
import { systemProgram } from "./system-program.js";

/** Data for which the disk has no room: rows, or the write-ahead log. */
type Shortage = "rows" | "log";

/** The disk. */
export interface SmallDisk {
  /** Description of the disk. */
  readonly what: string;
  /** Option `prepare` of `ownPostgres`. */
  prepare(dataDirectory: string): () => void;
  /** Fills the disk, so that no file can grow. */
  fill(postgres: OwnPostgres, shortage: Shortage): void;
  /** Frees the space again. */
  free(postgres: OwnPostgres): void;
}

/** The best that this process may have. */
export function smallDisk(): SmallDisk {
  return mayMount() ? tmpfs() : fileLimits();
}

const megabyte = 1024 * 1024;
/** Space for the cluster (some 40 MB), its log, and some rows. */
const diskBytes = 192 * megabyte;

function mount(directory: string): void {
  execFileSync(systemProgram("mount"), ["-t", "tmpfs", "-o", `size=${diskBytes}`, "tmpfs", directory], {
    stdio: "pipe",
  });
}

function mayMount(): boolean {
  const directory = mkdtempSync(join(tmpdir(), "hawser-mount-"));
  try {
    mount(directory);
    execFileSync(systemProgram("umount"), [directory]);
    return true;
  } catch {
    return false;
  } finally {
    rmdirSync(directory);
  }
}

function tmpfs(): SmallDisk {
  let mounted = "";
  const filler = (): string => join(mounted, "filler");
  return {
    what: "a tmpfs",
    prepare(dataDirectory) {
      mkdirSync(dataDirectory, { recursive: true });
      mount(dataDirectory);
      mounted = dataDirectory;
      return () => execFileSync(systemProgram("umount"), [dataDirectory]);
    },
    fill() {
      const file = openSync(filler(), "a");
      try {
        for (const step of [megabyte, 4_096]) fillWith(file, Buffer.alloc(step));
      } finally {
        closeSync(file);
      }
    },
    free() {
      rmSync(filler(), { force: true });
    },
  };
}

function fillWith(file: number, chunk: Buffer): void {
  try {
    for (;;) writeSync(file, chunk);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  }
}

function fileLimits(): SmallDisk {
  const limitOne = (pid: number, bytes: number | "unlimited"): void => {
    try {
      // The soft limit only: without rights it could not be raised again otherwise. By the process's own account: that
      // needs no rights.
      execFileSync(systemProgram("prlimit"), ["--pid", `${pid}`, `--fsize=${bytes}:`], {
        stdio: "pipe",
        ...serverAccount(),
      });
    } catch (error) {
      if (isAlive(pid)) throw error;
    }
  };
  const limit = (postgres: OwnPostgres, bytes: number | "unlimited"): void => {
    // The first one first: those that it starts from then on have its limit.
    const [first] = postgres.processes() as [number];
    limitOne(first, bytes);
    for (const pid of postgres.processes()) limitOne(pid, bytes);
  };
  return {
    what: "a limit of file sizes",
    prepare: () => () => undefined,
    // A file of the log has 16 MB from its beginning on.
    fill: (postgres, shortage) => limit(postgres, shortage === "rows" ? 16 * megabyte : megabyte),
    free: (postgres) => postgres.isRunning && limit(postgres, "unlimited"),
  };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
