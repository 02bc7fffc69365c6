/**
 * Database URLs where none belongs: what is said of them, and what is not.
 */

/** Words to add to a message about a misplaced argument: empty unless it is a database URL. */
export function whereUrlsBelong(argument: string): string {
  return /^postgres(?:ql)?:\/\//i.test(argument) ? " Give a database URL with --database-url." : "";
}

/** The text, with `***` for user and password of each URL in it, and for what follows `password=`. */
export function withoutPasswords(text: string): string {
  return (
    text
      // A password that is not percent-encoded may hold anything, so up to the last @ of the line.
      .replace(/\b(postgres(?:ql)?:\/\/)[^@\s]*:.*@/gi, "$1***@")
      .replace(/\b([a-z][a-z0-9+.-]*:\/\/)[^\s/@:]*:[^\s/@]*@/gi, "$1***@")
      .replace(/\b((?:ssl)?password=)[^&\s"']+/gi, "$1***")
  );
}
