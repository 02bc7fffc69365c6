/**
 * Postgres refuses to run as root. As root we give it an account without rights; as anybody else it runs as ourselves.
 */
import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";

/** A user and group to run a server as. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Whom Postgres runs as: undefined means as this process; as root it is the system's `nobody` (65534 where there is no
 * such entry).
 */
export function serverAccount(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined;
  return nobody() ?? { uid: 65534, gid: 65534 };
}

/** True if the account may pass through `path` and each directory above it. */
export function mayEnter(path: string, account: Account): boolean {
  for (let directory = resolve(path); ; directory = dirname(directory)) {
    const { mode, uid, gid } = statSync(directory);
    const executable = uid === account.uid ? 0o100 : gid === account.gid ? 0o010 : 0o001;
    if ((mode & executable) === 0) return false;
    if (directory === dirname(directory)) return true;
  }
}

function nobody(): Account | undefined {
  try {
    const line = readFileSync("/etc/passwd", "utf8").match(/^nobody:[^:]*:(\d+):(\d+):/m);
    return line === null ? undefined : { uid: Number(line[1]), gid: Number(line[2]) };
  } catch {
    return undefined;
  }
}
