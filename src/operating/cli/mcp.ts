/** `hawser mcp`: a server of the Model Context Protocol, by which an agent asks what is wrong and what waits. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { HawserError } from "../../foundation/errors/index.js";
import { Semaphore, version } from "../../foundation/runtime/index.js";
import { defineCommand } from "./command-line.js";
import { examinationOf, examinationOptions } from "./doctor.js";
import { untilStopped } from "./long-running.js";
import { answerText, shownText, untrustedNote } from "./mcp-answer.js";
import { type McpTool, mcpTools } from "./mcp-tools.js";
import { describeError, print } from "./output.js";

/** Number of calls that run at once, each with a connection to Postgres. Others wait. */
const runningCalls = 2;

export const command = defineCommand({
  details:
    "It speaks the protocol on standard input and output, so that an MCP client starts it, as the login of its database: its tools " +
    "doctor, why, pending, dead and job read what the login may read, and change nothing. Payloads are shown only if a call asks " +
    "for them. Texts of others are marked as untrusted. Needs `npm install @modelcontextprotocol/sdk@1` beside hawser",
  args: examinationOptions,
  run: async (args) => {
    const tools = mcpTools(examinationOf(args));
    const sdk = await loadSdk();
    await untilStopped(async ({ signal }) => {
      if (process.stdin.isTTY)
        print(process.stderr, "An MCP client starts `hawser mcp` and speaks to it here; Ctrl-C ends it.");
      const running = new Set<Promise<unknown>>();
      const server = mcpServer(sdk, tools, running);
      const stopped = new Promise<void>((resolve) => {
        signal.addEventListener("abort", () => resolve(), { once: true });
        // Nobody reads any more.
        process.stdout.once("error", () => resolve());
        server.onclose = resolve;
      });
      const asked = new Promise<void>((resolve) => {
        for (const event of ["end", "close", "error"]) process.stdin.once(event, () => resolve());
      });
      await server.connect(new sdk.StdioServerTransport());
      await Promise.race([asked, stopped]);
      await Promise.race([allAnswered(running), stopped]);
      await server.close();
      process.stdin.destroy();
      // They only read, so that they can end at any time.
      if (running.size > 0) process.exit();
    });
  },
  examples: [
    ["claude mcp add jobs -- npx hawser mcp --database-url postgres://viewer@127.0.0.1/app", "For Claude Code"],
    ["npx @modelcontextprotocol/inspector npx hawser mcp", "Call the tools in a browser"],
  ],
});

/** @throws HawserError `not_supported` if the SDK is not installed */
async function loadSdk() {
  try {
    const [server, stdio, types, ajv] = await Promise.all([
      import("@modelcontextprotocol/sdk/server/index.js"),
      import("@modelcontextprotocol/sdk/server/stdio.js"),
      import("@modelcontextprotocol/sdk/types.js"),
      import("@modelcontextprotocol/sdk/validation/ajv"),
    ]);
    return { ...server, ...stdio, ...types, ...ajv };
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    const message =
      "`hawser mcp` needs @modelcontextprotocol/sdk, which is not installed beside hawser: `npm install @modelcontextprotocol/sdk@1`";
    throw new HawserError("not_supported", message, { cause });
  }
}

/** Resolves when all calls that were received have been answered. */
async function allAnswered(running: ReadonlySet<Promise<unknown>>): Promise<void> {
  // The SDK starts a call, and sends its answer, a moment later.
  do {
    await nextTurn();
    await Promise.allSettled(running);
    await nextTurn();
  } while (running.size > 0);
}

type Sdk = Awaited<ReturnType<typeof loadSdk>>;

/** @param running calls that run */
function mcpServer(sdk: Sdk, tools: Readonly<Record<string, McpTool>>, running: Set<Promise<unknown>>) {
  const { CallToolRequestSchema, ErrorCode, ListToolsRequestSchema, McpError } = sdk;
  const schemas = new sdk.AjvJsonSchemaValidator();
  const validators = new Map(
    Object.entries(tools).map(([name, { inputSchema }]) => [name, schemas.getValidator({ ...inputSchema })]),
  );
  const turns = new Semaphore(runningCalls);
  const server = new sdk.Server(
    { name: "hawser", title: "Hawser", version },
    {
      capabilities: { tools: {} },
      instructions: `Hawser: jobs, messages and dead letters of one Postgres database. All tools only read. ${untrustedNote}`,
    },
  );
  server.onerror = (error) => print(process.stderr, `hawser: ${shownText(error.message)}`);
  server.setRequestHandler(ListToolsRequestSchema, () => ({
    tools: Object.entries(tools).map(([name, { title, description, inputSchema }]) => ({
      ...{ name, title, description, inputSchema },
      annotations: { title, readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
    })),
  }));
  const answered = async (name: string, tool: McpTool, given: Record<string, unknown>) => {
    await turns.acquire(1);
    try {
      const { errorMessage } = validators.get(name)!(given);
      if (errorMessage !== undefined) throw unfit(name, given, errorMessage);
      return contentOf(await tool.answer(given));
    } catch (error) {
      const described = describeError(error);
      if (!(error instanceof HawserError)) print(process.stderr, described);
      return { isError: true, ...contentOf({ untrusted: { error: shownText(described) } }) };
    } finally {
      turns.release(1);
    }
  };
  server.setRequestHandler(CallToolRequestSchema, async ({ params }) => {
    const { name, arguments: given = {} } = params;
    const tool = Object.hasOwn(tools, name) ? tools[name] : undefined;
    if (tool === undefined) {
      const known = Object.keys(tools).join(", ");
      throw new McpError(
        ErrorCode.InvalidParams,
        `there is no tool ${shownText(JSON.stringify(name), 200)}; the tools are ${known}`,
      );
    }
    const call = answered(name, tool, given).finally(() => running.delete(call));
    running.add(call);
    return await call;
  });
  return server;
}

const contentOf = (answer: object) => ({ content: [{ type: "text" as const, text: answerText(answer) }] });

function unfit(name: string, given: object, errorMessage: string): HawserError {
  const remedy = "give arguments that fit the tool's inputSchema, which tools/list shows";
  const value = shownText(JSON.stringify(given), 300);
  return new HawserError("invalid_argument", `${name} of ${value}: ${shownText(errorMessage, 500)}; ${remedy}`);
}
