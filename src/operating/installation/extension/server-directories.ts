/** Extension directories of a Postgres server on this machine, as reported by its pg_config. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { HawserError } from "../../../foundation/errors/index.js";

/** Directories of one server. */
export interface ServerDirectories {
  /** Directory of control files and scripts. */
  readonly extension: string;
  /** Directory of libraries; undefined if only the extension directory was given. */
  readonly library?: string | undefined;
}

/** Directories of pg_config if it is not on the PATH: `parent/<matching>/bin`. */
const usualPlaces: readonly (readonly [parent: string, matching: RegExp])[] = [
  ["/usr/lib/postgresql", /^\d+$/],
  ["/usr", /^pgsql-\d+$/],
  ["/usr/local", /^pgsql$/],
  ["/Library/PostgreSQL", /^\d+$/],
  ["/opt/homebrew/opt", /^postgresql(@\d+)?$/],
  ["/usr/local/opt", /^postgresql(@\d+)?$/],
];

/**
 * Finds the directories of the server that pg_config belongs to.
 *
 * @param options.pgConfig path of pg_config; default: the one on the PATH, otherwise the one in a usual directory
 * @param options.path value to use instead of PATH
 * @param options.usual directories to use instead of the usual ones
 * @throws HawserError `invalid_argument` if there is no pg_config, or if there are several for different servers
 */
export function findServerDirectories(
  options: {
    readonly pgConfig?: string | undefined;
    readonly path?: string | undefined;
    readonly usual?: readonly string[] | undefined;
  } = {},
): ServerDirectories {
  if (options.pgConfig !== undefined) return directoriesOf(options.pgConfig);
  const onPath = pgConfigsIn((options.path ?? process.env["PATH"] ?? "").split(delimiter));
  const candidates = onPath.length > 0 ? onPath : pgConfigsIn(options.usual ?? usualDirectories());
  if (candidates.length === 0) {
    throw new HawserError(
      "invalid_argument",
      "no pg_config was found, which reports the extension directory of Postgres: give it with --pg-config, or name the directory " +
        "share/extension of the server with --directory. On another machine, take the files from `hawser extension print`",
    );
  }
  const different = new Map<string, { readonly program: string; readonly directories: ServerDirectories }>();
  for (const program of candidates) {
    const directories = directoriesOf(program);
    if (!different.has(directories.extension)) different.set(directories.extension, { program, directories });
  }
  const [first, ...others] = different.values();
  if (others.length === 0) return first!.directories;
  const listed = [first!, ...others]
    .map(({ program, directories }) => `${program} (${directories.extension})`)
    .join(", ");
  throw new HawserError(
    "invalid_argument",
    `there are several Postgres servers here: ${listed}. Name one of them with --pg-config`,
  );
}

function pgConfigsIn(directories: readonly string[]): string[] {
  const programs = directories.filter(isAbsolute).map((directory) => join(directory, "pg_config"));
  return [...new Set(programs)].filter((program) => existsSync(program));
}

function usualDirectories(): string[] {
  return usualPlaces.flatMap(([parent, matching]) =>
    existsSync(parent)
      ? readdirSync(parent)
          .filter((name) => matching.test(name))
          .map((name) => join(parent, name, "bin"))
      : [],
  );
}

function directoriesOf(pgConfig: string): ServerDirectories {
  return {
    extension: join(runPgConfig(pgConfig, "--sharedir"), "extension"),
    library: runPgConfig(pgConfig, "--pkglibdir"),
  };
}

function runPgConfig(pgConfig: string, question: string): string {
  const { stdout, stderr, error } = spawnSync(pgConfig, [question], { encoding: "utf8", timeout: 10_000 });
  const answer = (stdout ?? "").trim();
  if (error === undefined && isAbsolute(answer)) return answer;
  throw new HawserError(
    "invalid_argument",
    `"${pgConfig} ${question}" does not name a directory (${error?.message ?? (stderr.trim() || JSON.stringify(answer))}): ` +
      "name the pg_config of the server with --pg-config, or its directory share/extension with --directory",
    { cause: error },
  );
}
