/** A real Chromium, out of a package of npm, and tabs that note whatever a page must not do. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import axe from "axe-core";
import puppeteer, { type Browser, type LaunchOptions, type Page } from "puppeteer-core";
import { projectDirectory } from "../../support/program.js";

/** As long as the machine may take that has much else to do. */
const patienceMs = 150_000;

/** Browser of a test file. Disposing it ends it, and removes its files. */
export interface TestBrowser extends AsyncDisposable {
  /** Opens a tab that may only talk to this origin. */
  tab(origin: string, options?: TabOptions): Promise<Tab>;
}

export interface TabOptions {
  /** Default: light. */
  readonly scheme?: "light" | "dark";
  /** Width in CSS pixels. Default: 1,000. */
  readonly width?: number;
  /** Height in CSS pixels. Default: 700. */
  readonly height?: number;
  /** False: the browser runs no script of a page. Default: true. */
  readonly javaScript?: boolean;
}

/** Unpacks Chromium, and starts it. */
export async function openBrowser(): Promise<TestBrowser> {
  const directory = mkdtempSync(join(tmpdir(), "hawser-chromium-"));
  const remove = () => rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  try {
    const executablePath = await unpacked(directory);
    const browser = await launched({
      executablePath,
      headless: "shell",
      // Tests may run as root, for whom Chromium has no sandbox; of what it shows, all is from this machine.
      args: ["--no-sandbox"],
      env: {
        ...process.env,
        HOME: directory,
        TMPDIR: directory,
        FONTCONFIG_FILE: fontsOf(directory),
        LD_LIBRARY_PATH: join(directory, "al2023/lib"),
      },
      timeout: patienceMs,
      protocolTimeout: patienceMs,
    });
    return {
      tab: (origin, options) => Tab.open(browser, origin, options),
      async [Symbol.asyncDispose]() {
        await browser.close();
        remove();
      },
    };
  } catch (error) {
    remove();
    throw error;
  }
}

/**
 * Starts Chromium. It is started a second time if the first one fails, and the output of the second is shown: once in some
 * hundred runs of all tests a signal ended it before it listened, and it had printed nothing.
 */
async function launched(options: LaunchOptions): Promise<Browser> {
  try {
    return await puppeteer.launch(options);
  } catch (error) {
    console.error("Chromium is started again:", error);
    return await puppeteer.launch({ ...options, dumpio: true });
  }
}

/**
 * Unpacks into a directory, in a process of its own: the package takes the directory and what to unpack from the
 * environment, and changes it. With that variable it also unpacks libraries that not every machine has.
 */
async function unpacked(directory: string): Promise<string> {
  const script = `import chromium from "@sparticuz/chromium"; process.stdout.write(await chromium.executablePath());`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script], {
    cwd: projectDirectory,
    env: { ...process.env, TMPDIR: directory, AWS_LAMBDA_JS_RUNTIME: "nodejs20.x" },
  });
  return stdout;
}

/** Configures the fonts that were unpacked, and no others, so that text is as wide on every machine. @returns the path of the file */
function fontsOf(directory: string): string {
  const path = join(directory, "fonts.conf");
  const element = (name: string, value: string) => `<${name}>${join(directory, value)}</${name}>`;
  writeFileSync(path, `<fontconfig>${element("dir", "fonts")}${element("cachedir", "fonts-cache")}</fontconfig>`);
  return path;
}

/** Tab of a browser. */
export class Tab implements AsyncDisposable {
  /** Errors of the console, refusals by the content security policy, dialogs, and requests to other origins. */
  readonly problems: string[] = [];

  private constructor(
    readonly page: Page,
    readonly origin: string,
  ) {}

  static async open(browser: Browser, origin: string, options: TabOptions = {}): Promise<Tab> {
    const { scheme = "light", width = 1_000, height = 700, javaScript = true } = options;
    const page = await browser.newPage();
    page.setDefaultTimeout(patienceMs);
    await page.setViewport({ width, height });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.setJavaScriptEnabled(javaScript);
    const tab = new Tab(page, origin);
    page.on("console", (message) => {
      if (["error", "warn", "assert"].includes(message.type())) tab.problems.push(`console: ${message.text()}`);
    });
    page.on("pageerror", (error) => tab.problems.push(`error: ${error}`));
    page.on("dialog", (dialog) => {
      tab.problems.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on("popup", () => tab.problems.push("a window was opened"));
    page.on("request", (request) => {
      if (new URL(request.url()).origin !== origin) tab.problems.push(`request: ${request.url()}`);
    });
    return tab;
  }

  /** Loads a page of the origin. */
  async open(path: string): Promise<void> {
    await this.page.goto(`${this.origin}${path}`);
  }

  /** Path and query of the page. */
  get path(): string {
    const { pathname, search } = new URL(this.page.url());
    return `${pathname}${search}`;
  }

  /** Text as a reader sees it. */
  text(): Promise<string> {
    return this.value<string>("document.body?.innerText ?? ''");
  }

  /** Value of an expression in the page. A page that reloads itself meanwhile is asked again. */
  async value<T>(expression: string): Promise<T> {
    for (;;) {
      try {
        return (await this.page.evaluate(expression)) as T;
      } catch (error) {
        if (!/context was destroyed|Cannot find context|detached/i.test(String(error))) throw error;
      }
    }
  }

  /** Clicks a link or button by its name or the beginning of it, and waits for the page that it leads to. */
  async click(name: string): Promise<void> {
    const handle = await this.page.evaluateHandle(`(${named})(${JSON.stringify(name)})`);
    const element = handle.asElement();
    if (element === null) throw new Error(`no link or button is called "${name}" at ${this.path}`);
    await this.#navigation(() => element.click());
  }

  /** Goes to a link or button by the Tab key, as {@link click}, and presses Enter. The focus must be visible. */
  async pressOn(name: string): Promise<void> {
    await this.tabTo(name);
    await this.submit();
  }

  /** Presses Enter, and waits for the page to which that leads. */
  async submit(): Promise<void> {
    await this.#navigation(() => this.page.keyboard.press("Enter"));
  }

  /** Presses Tab until a link, button or field with this name has the focus. @returns names that had it on the way */
  async tabTo(name: string): Promise<string[]> {
    const passed: string[] = [];
    for (;;) {
      await this.page.keyboard.press("Tab");
      const focus = await this.value<{ readonly name: string; readonly isVisible: boolean } | null>(`(${focused})()`);
      // After the last element the focus leaves the page.
      if (focus === null)
        throw new Error(`Tab does not lead to "${name}" at ${this.path}, but to: ${passed.join(" | ")}`);
      if (!focus.isVisible) this.problems.push(`the focus on "${focus.name}" at ${this.path} is not visible`);
      if (focus.name.startsWith(name)) return passed;
      passed.push(focus.name);
    }
  }

  /** Writes a picture of what the window shows, with other texts for those that match a pattern. */
  async shoot(path: string, texts: Readonly<Record<string, string>>): Promise<void> {
    await this.value(`(${replaced})(${JSON.stringify(texts)})`);
    await this.page.screenshot({ path: path as `${string}.webp`, quality: 45 });
  }

  /** Findings of axe about the page as it is shown. */
  async axe(): Promise<string[]> {
    await this.page.evaluate(axe.source);
    // Preloading would fetch the style sheet by a script, which the content security policy refuses.
    const { violations } = await this.value<axe.AxeResults>("axe.run({ preload: false })");
    return violations.flatMap(({ id, help, nodes }) =>
      nodes.map(({ html }) => `${this.path}: ${id} (${help}): ${html}`),
    );
  }

  async #navigation(act: () => Promise<void>): Promise<void> {
    await Promise.all([this.page.waitForNavigation(), act()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.page.close();
  }
}

// Functions of the page are texts: this project has no types of a browser.
const named = `(name) => [...document.querySelectorAll("a, button")].find((one) => one.innerText.trim().startsWith(name)) ?? null`;

const focused = `() => {
  const one = document.activeElement;
  if (one === null || one === document.body) return null;
  const style = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  const label = one.labels?.[0]?.innerText ?? one.getAttribute("aria-label") ?? one.innerText;
  const isOutlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const isInView = box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight;
  return { name: label.trim(), isVisible: isOutlined && isInView };
}`;

const replaced = `(texts) => {
  const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (nodes.nextNode())
    for (const [pattern, text] of Object.entries(texts))
      nodes.currentNode.data = nodes.currentNode.data.replace(new RegExp(pattern, "g"), text);
}`;
