/**
 * Where a Postgres server of this machine has its extensions, as its own pg_config says.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { HawserError } from "../../errors/index.js";

/** The directories of one server. */
export interface ServerDirectories {
  /** Of control files and scripts. */
  readonly extension: string;
  /** Of libraries; undefined where only the other one was named. */
  readonly library?: string | undefined;
}

/** Where packages put pg_config beside the server, and not on the path: `parent/<matching>/bin`. */
const usualPlaces: readonly (readonly [parent: string, matching: RegExp])[] = [
  ["/usr/lib/postgresql", /^\d+$/],
  ["/usr", /^pgsql-\d+$/],
  ["/usr/local", /^pgsql$/],
  ["/Library/PostgreSQL", /^\d+$/],
  ["/opt/homebrew/opt", /^postgresql(@\d+)?$/],
  ["/usr/local/opt", /^postgresql(@\d+)?$/],
];

/**
 * The directories of the server that pg_config is of.
 *
 * @param options.pgConfig the program; default: the one on the path, and where there is none the one in a usual place
 * @param options.path the path, default PATH; `options.usual` the usual directories
 * @throws HawserError `invalid_argument` if there is none, or the several that there are belong to different servers
 */
export function findServerDirectories(
  options: {
    readonly pgConfig?: string | undefined;
    readonly path?: string | undefined;
    readonly usual?: readonly string[] | undefined;
  } = {},
): ServerDirectories {
  if (options.pgConfig !== undefined) return directoriesOf(options.pgConfig);
  const onPath = among((options.path ?? process.env["PATH"] ?? "").split(delimiter));
  const candidates = onPath.length > 0 ? onPath : among(options.usual ?? usualDirectories());
  if (candidates.length === 0) {
    throw new HawserError(
      "invalid_argument",
      "no pg_config was found, which says where Postgres has its extensions: name it with --pg-config, or name the directory " +
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

function among(directories: readonly string[]): string[] {
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
    extension: join(ask(pgConfig, "--sharedir"), "extension"),
    library: ask(pgConfig, "--pkglibdir"),
  };
}

function ask(pgConfig: string, question: string): string {
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
