// Paper is white, whatever the screen is; the rest of printing is in book.css.
(() => {
  const { dataset } = document.documentElement;
  let screen = null;
  addEventListener("beforeprint", () => {
    screen ??= dataset.theme;
    dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    dataset.theme = screen ?? "light";
    screen = null;
  });
})();
