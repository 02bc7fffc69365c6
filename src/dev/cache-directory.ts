import { homedir } from "node:os";
import { join } from "node:path";

/** Where downloaded programs are kept: HAWSER_CACHE_DIR, else `hawser` in the user's cache directory. */
export function cacheDirectory(): string {
  const { HAWSER_CACHE_DIR: own, XDG_CACHE_HOME: xdg } = process.env;
  if (own) return own;
  return join(xdg || join(homedir(), ".cache"), "hawser");
}
