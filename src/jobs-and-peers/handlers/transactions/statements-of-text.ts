/** Statements of a text that a user gives to a driver, as far as it takes to find BEGIN, COMMIT and ROLLBACK in it. */

/** Statement of a text. */
export interface TextStatement {
  readonly source: string;
  /** The same without comments, and with single spaces. */
  readonly bare: string;
}

const controlWord = /\b(?:begin|start|commit|end|rollback|abort|prepare)\b/i;
const token =
  /--[^\n]*|\/\*|['"();]|\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/g;
const routine = /^create (?:or replace )?(?:function|procedure) /i;

/** True if a text may contain transaction control. */
export function isControl(text: string): boolean {
  return controlWord.test(text);
}

/** Splits a text at the semicolons between its statements. */
export function statementsOf(text: string): TextStatement[] {
  const statements: TextStatement[] = [];
  let start = 0;
  // Parts of the current statement without its comments.
  let parts = "";
  let from = 0;
  let parentheses = 0;
  // Of BEGIN ATOMIC … END, the body of a routine.
  let blocks = 0;
  const end = (at: number): void => {
    const bare = bareOf(parts + text.slice(from, at));
    if (bare !== "") statements.push({ source: text.slice(start, at).trim(), bare });
    parts = "";
    start = at + 1;
    from = start;
  };
  token.lastIndex = 0;
  let word = { lower: "", end: -1 };
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const { 0: found, index } = match;
    const isEscaped = word.lower === "e" && word.end === index;
    const [first] = found;
    if (found.startsWith("--") || found === "/*") {
      const after = found === "/*" ? endOfComment(text, index) : index + found.length;
      parts += `${text.slice(from, index)} `;
      from = after;
      token.lastIndex = after;
    } else if (first === "'" || first === '"') token.lastIndex = endOfQuoted(text, index, isEscaped);
    else if (first === "$") token.lastIndex = endOf(text, found, index + found.length);
    else if (found === "(") parentheses += 1;
    else if (found === ")") parentheses -= 1;
    else if (found === ";") {
      if (parentheses <= 0 && blocks === 0) end(index);
    } else {
      const lower = found.toLowerCase();
      if (blocks > 0) blocks += lower === "case" ? 1 : lower === "end" ? -1 : 0;
      else if (lower === "atomic" && word.lower === "begin" && routine.test(bareOf(parts + text.slice(from, index))))
        blocks = 1;
      word = { lower, end: index + found.length };
    }
  }
  end(text.length);
  return statements;
}

function bareOf(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim();
}

/** @returns the place behind the next occurrence, or the end of the text */
function endOf(text: string, found: string, from: number): number {
  const at = text.indexOf(found, from);
  return at === -1 ? text.length : at + found.length;
}

function endOfQuoted(text: string, from: number, isEscaped: boolean): number {
  const quote = text[from]!;
  for (let at = from + 1; at < text.length; at += 1) {
    if (isEscaped && text[at] === "\\") at += 1;
    else if (text[at] !== quote) continue;
    else if (text[at + 1] === quote) at += 1;
    else return at + 1;
  }
  return text.length;
}

/** Comments of this form are nested. */
function endOfComment(text: string, from: number): number {
  const mark = /\/\*|\*\//g;
  mark.lastIndex = from;
  let depth = 0;
  for (let match = mark.exec(text); match !== null; match = mark.exec(text)) {
    depth += match[0] === "/*" ? 1 : -1;
    if (depth === 0) return mark.lastIndex;
  }
  return text.length;
}
