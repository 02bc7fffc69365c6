/** Generates small mistakes in a source file, one at a time, which a test suite should detect. */
import { parseSync } from "oxc-parser";

/** Mistake in the code: a replacement of a range of characters. */
export interface Mutant {
  /** Path relative to the root of the project. */
  readonly file: string;
  /** Line, counted from 1. */
  readonly line: number;
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
  /** Old and new text in one line. */
  readonly what: string;
}

type Node = { readonly type: string; readonly start: number; readonly end: number } & Record<string, unknown>;

const otherOperator: Readonly<Record<string, string>> = {
  "===": "!==",
  "!==": "===",
  "<": "<=",
  "<=": "<",
  ">": ">=",
  ">=": ">",
  "+": "-",
  "-": "+",
  "*": "/",
  "/": "*",
  "%": "*",
  "&": "|",
  "|": "&",
  "<<": ">>",
  ">>": "<<",
  "&&": "||",
  "||": "&&",
  "??": "&&",
  "+=": "-=",
  "-=": "+=",
};

/**
 * Generates mutants: negated conditions, exchanged operators, changed constants, removed statements, removed return
 * values.
 */
export function makeMutants(file: string, text: string): Mutant[] {
  const found: Mutant[] = [];
  const source = (node: Node): string => text.slice(node.start, node.end);
  const add = (node: { start: number; end: number }, replacement: string): void => {
    const line = text.slice(0, node.start).split("\n").length;
    const what = `${shortened(text.slice(node.start, node.end))} → ${replacement === "" ? "nothing" : shortened(replacement)}`;
    found.push({ file, line, start: node.start, end: node.end, replacement, what });
  };
  /** Exchanges the operator between two operands. */
  const exchange = (left: Node, right: Node, operator: string): void => {
    const other = otherOperator[operator];
    if (other === undefined) return;
    const at = text.indexOf(operator, left.end);
    if (at >= 0 && at < right.start) add({ start: at, end: at + operator.length }, other);
  };
  const visit = (node: Node): void => {
    switch (node.type) {
      case "ImportDeclaration":
      case "ExportAllDeclaration":
      case "TSTypeAliasDeclaration":
      case "TSInterfaceDeclaration":
      case "TSTypeAnnotation":
      case "TSTypeParameterInstantiation":
      case "TSTypeParameterDeclaration":
        return;
      case "IfStatement":
      case "ConditionalExpression":
      case "WhileStatement":
        add(node["test"] as Node, `!(${source(node["test"] as Node)})`);
        break;
      case "BinaryExpression":
      case "LogicalExpression":
      case "AssignmentExpression":
        exchange(node["left"] as Node, node["right"] as Node, node["operator"] as string);
        break;
      case "UpdateExpression":
        add(node, source(node).replaceAll("+", "#").replaceAll("-", "+").replaceAll("#", "-"));
        break;
      case "Literal":
        if (typeof node["value"] === "boolean") add(node, String(!node["value"]));
        else if (typeof node["value"] === "number") add(node, String(node["value"] + 1));
        else if (typeof node["value"] === "string") add(node, node["value"] === "" ? '"mutant"' : '""');
        return;
      case "TemplateLiteral":
        add(node, '""');
        break;
      case "ExpressionStatement":
        if (!("directive" in node && node["directive"])) add(node, ";");
        break;
      case "ReturnStatement":
        if (node["argument"] && source(node) !== "return undefined;") add(node, "return undefined;");
        break;
      case "ThrowStatement":
        add(node, ";");
        break;
    }
    for (const [name, child] of Object.entries(node)) {
      // Types, property names and type exports have no effect at run time.
      if (
        name === "typeAnnotation" ||
        name === "source" ||
        name === "returnType" ||
        name === "typeArguments" ||
        name === "key"
      )
        continue;
      for (const each of Array.isArray(child) ? child : [child]) {
        if (each !== null && typeof each === "object" && typeof (each as Node).type === "string") visit(each as Node);
      }
    }
  };
  const { program, errors } = parseSync(file, text);
  if (errors.length > 0) throw new Error(`${file} cannot be parsed: ${errors[0]!.message}`);
  visit(program as unknown as Node);
  return found;
}

/** Text of the file with the mistake. */
export function mutated(text: string, { start, end, replacement }: Mutant): string {
  return text.slice(0, start) + replacement + text.slice(end);
}

function shortened(code: string): string {
  const line = code.replaceAll(/\s+/g, " ");
  return line.length > 60 ? `${line.slice(0, 57)}...` : line;
}
