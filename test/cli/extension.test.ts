import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { version } from "../../src/foundation/runtime/index.js";
import { findServerDirectories } from "../../src/operating/installation/index.js";
import { fakePgConfig } from "../support/extension-server.js";
import { giveTo, ordinaryUser } from "../support/other-user.js";
import { temporaryDirectory } from "../support/temporary.js";
import { hawser, hawserProcess, jsonLines } from "./support/hawser.js";

const control = "litmus_pgnats.control";
const script = `litmus_pgnats--${version}.sql`;

/** The directories of a server that is not there, with its pg_config in a directory of its own. */
function serverFiles(name = "server"): Record<"bin" | "extension" | "library" | "pgConfig", string> {
  const root = join(temporaryDirectory(), name);
  const [bin, extension, library] = [join(root, "bin"), join(root, "share/extension"), join(root, "lib")];
  for (const directory of [bin, extension, library]) mkdirSync(directory, { recursive: true });
  return { bin, extension, library, pgConfig: fakePgConfig(bin, { share: join(root, "share"), lib: library }) };
}

describe("hawser extension", () => {
  it("writes what has changed, and takes the place of another version", async () => {
    const { extension, pgConfig } = serverFiles();
    const old = "litmus_pgnats--0.0.1.sql";
    const install = async (...args: string[]) =>
      jsonLines((await hawser(["extension", "install", "--pg-config", pgConfig, "--json", ...args])).stdout)[0]!;
    const report = (directory: string, dryRun: boolean, files: readonly (readonly [string, string])[]) => ({
      version,
      directory,
      dryRun,
      files: files.map(([name, change]) => ({ path: join(directory, name), change })),
    });
    const first: (readonly [string, string])[] = [
      [script, "written"],
      [control, "written"],
    ];
    expect(await install("--dry-run")).toEqual(report(extension, true, first));
    expect(readdirSync(extension)).toEqual([]);
    expect(await install()).toEqual(report(extension, false, first));
    writeFileSync(join(extension, old), readFileSync(join(extension, script)));
    writeFileSync(join(extension, control), `# Made by hawser extension.\ndefault_version = '0.0.1'\n`);
    expect(await install()).toEqual(
      report(extension, false, [
        [script, "unchanged"],
        [control, "written"],
        [old, "removed"],
      ]),
    );
    expect(readdirSync(extension).sort()).toEqual([script, control].sort());
    expect(readFileSync(join(extension, control), "utf8")).toContain(`default_version = '${version}'`);
  });

  it("uninstalls its own files and no others", async () => {
    const { extension, pgConfig } = serverFiles();
    for (const name of ["dblink.control", "litmus_pgnats--1.1.sql"])
      writeFileSync(join(extension, name), "-- of others\n");
    await hawser(["extension", "install", "--pg-config", pgConfig]);
    const { stdout } = await hawser(["extension", "uninstall", "--directory", extension]);
    expect(stdout).toContain(`Removed ${join(extension, control)}\nRemoved ${join(extension, script)}\n`);
    expect(readdirSync(extension).sort()).toEqual(["dblink.control", "litmus_pgnats--1.1.sql"]);
    const again = await hawser(["extension", "uninstall", "--directory", extension]);
    expect(again).toMatchObject({ status: 0, stdout: expect.stringContaining("has no files of Hawser") });
  });

  it("prints both files as it installs them", async () => {
    const { extension } = serverFiles();
    await hawser(["extension", "install", "--directory", extension]);
    const sql = await hawser(["extension", "print", "sql"]);
    expect(sql.stdout).toBe(readFileSync(join(extension, script), "utf8"));
    expect(sql.stdout).toMatch(/^\\echo Use "CREATE EXTENSION litmus_pgnats" to load this file\. \\quit$/m);
    expect(sql.stdout).toMatch(/^\p{ASCII}+$/u);
    expect((await hawser(["extension", "print", "control"])).stdout).toBe(
      readFileSync(join(extension, control), "utf8"),
    );
  });

  it("refuses to take the place of the native extension, by its control file or its library", async () => {
    const { extension, library, pgConfig } = serverFiles();
    const native = "default_version = '1.1'\nmodule_pathname = '$libdir/litmus_pgnats'\n";
    writeFileSync(join(extension, control), native);
    const install = () => hawser(["extension", "install", "--pg-config", pgConfig]);
    expect(await install()).toMatchObject({
      status: 78,
      stderr: expect.stringMatching(/shared_preload_libraries.*native_extension/s),
    });
    expect(readFileSync(join(extension, control), "utf8")).toBe(native);
    rmSync(join(extension, control));
    writeFileSync(join(library, "litmus_pgnats.so"), "");
    expect(await install()).toMatchObject({
      status: 78,
      stderr: expect.stringContaining(join(library, "litmus_pgnats.so")),
    });
    expect(readdirSync(extension)).toEqual([]);
  });

  it("says who may write to the directory where it may not", async () => {
    const { extension } = serverFiles();
    const user = ordinaryUser();
    if (user === undefined) chmodSync(extension, 0o555);
    // Root without another user, whom only the kernel refuses.
    const directory = user === undefined && process.getuid!() === 0 ? "/sys/kernel" : extension;
    const { status, stderr } = await hawserProcess(["extension", "install", "--directory", directory], {
      ...user,
      env: { HOME: user === undefined ? process.env["HOME"] : giveTo(user, temporaryDirectory()) },
    });
    expect(status).toBe(70);
    expect(stderr).toMatch(new RegExp(`${directory} is not writable for this user \\(E\\w+\\): run .* sudo`));
    expect(readdirSync(extension)).toEqual([]);
  });

  it("finds the pg_config on the path; of several servers it takes none, and names them", async () => {
    const [one, other] = [serverFiles("one"), serverFiles("other")];
    const install = (path: string) => hawser(["extension", "install", "--dry-run"], { env: { PATH: path } });
    const alone = await install(`${one.bin}:/nowhere:${one.bin}`);
    expect(alone).toMatchObject({
      status: 0,
      stdout: expect.stringContaining(`Would write ${join(one.extension, control)}`),
    });
    const several = await install(`${one.bin}:${other.bin}`);
    expect(several.status).toBe(64);
    expect(several.stderr).toContain(`${one.pgConfig} (${one.extension}), ${other.pgConfig} (${other.extension})`);
    expect(several.stderr).toContain("--pg-config");
    const broken = await hawser(["extension", "install", "--pg-config", join(one.bin, "missing")]);
    expect(broken).toMatchObject({ status: 64, stderr: expect.stringContaining("ENOENT") });
  });

  it("looks in the usual places where there is none on the path", () => {
    const [one, other] = [serverFiles("one"), serverFiles("other")];
    const find = (path: string, ...usual: string[]) => findServerDirectories({ path, usual });
    expect(find("/nowhere", one.bin)).toEqual({ extension: one.extension, library: one.library });
    expect(find(other.bin, one.bin)).toEqual({ extension: other.extension, library: other.library });
    expect(() => find("/nowhere", one.bin, other.bin)).toThrow(/several Postgres servers/);
    expect(() => find("/nowhere")).toThrow(/no pg_config was found.*--pg-config.*--directory/);
  });

  it("refuses a directory that is not there, and words that do not go together", async () => {
    const missing = await hawser(["extension", "install", "--directory", "/nowhere/extension"]);
    expect(missing).toMatchObject({
      status: 64,
      stderr: expect.stringContaining("/nowhere/extension cannot be read as a directory"),
    });
    const cases = [
      [["extension", "instal"], 'cannot "instal". Did you mean'],
      [["extension", "print"], "name control or sql"],
      [["extension", "print", "readme"], 'name control or sql, not "readme"'],
      [["extension", "print", "sql", "--json"], "--json goes with install and uninstall"],
      [["extension", "install", "sql"], "an unexpected argument"],
      [["extension", "install", "--directory", "/tmp", "--pg-config", "x"], "do not go together"],
    ] as const;
    for (const [args, message] of cases) {
      expect(await hawser(args)).toMatchObject({ status: 64, stderr: expect.stringContaining(message) });
    }
  });
});
