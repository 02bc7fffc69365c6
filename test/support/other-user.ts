/**
 * Doing things as another user than root, for tests that run as root.
 */
import { chownSync } from "node:fs";
import { dirname } from "node:path";
import { type Account, mayEnter } from "../../src/development/dev/server-process.js";
import { projectDirectory } from "./program.js";

/** An ordinary user: Debian's `games`, which has an entry in /etc/passwd and no files. */
const otherUser: Account = { uid: 5, gid: 60 };

/**
 * An ordinary user to start programs as: undefined if this process is one already and can become no other, or if that
 * user could not read the project or run our node.
 */
export function ordinaryUser(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined;
  return [projectDirectory, dirname(process.execPath)].every((path) => mayEnter(path, otherUser))
    ? otherUser
    : undefined;
}

/** Gives a directory to the user. */
export function giveTo(user: Account, directory: string): string {
  chownSync(directory, user.uid, user.gid);
  return directory;
}
