/** psycopg for tests with Python programs: a package of PyPI, which is kept in the cache. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { findProgram } from "../../src/development/dev/server-process.js";
import { kept } from "./kept.js";

const run = promisify(execFile);
const psycopgVersion = "3.3.9";
const installTimeoutMs = 600_000;

/** Python and the directory of psycopg, for `PYTHONPATH`; a promise that rejects has the reason why there is none. */
export async function findPsycopg(): Promise<{ readonly python: string; readonly path: string }> {
  const python = findProgram("python3");
  if (python === undefined) throw new Error("there is no python3 on PATH");
  const place = `psycopg/${psycopgVersion}-${process.platform}-${process.arch}`;
  const path = await kept(place, "packages", async (directory) => {
    const target = join(directory, "packages");
    const install = ["-m", "pip", "install", "--quiet", "--target", target, `psycopg[binary]==${psycopgVersion}`];
    await run(python, install, { timeout: installTimeoutMs });
  });
  return { python, path };
}
