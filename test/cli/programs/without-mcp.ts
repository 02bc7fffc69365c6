/** Loaded before `hawser`: the SDK of the Model Context Protocol is resolved from a directory that has none. */
import { register } from "node:module";

const hooks = `export const resolve = (specifier, context, next) =>
  next(specifier, specifier.startsWith("@modelcontextprotocol/") ? { ...context, parentURL: "file:///nowhere/x.js" } : context);`;

register(`data:text/javascript,${encodeURIComponent(hooks)}`);
