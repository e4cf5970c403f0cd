// Says why the page cannot work where it cannot; no module, so that it runs there, too.

(function () {
  var reason = "";
  if (location.protocol === "file:") {
    reason = "Browsers do not load programs from files. Serve this folder: python -m http.server --directory FOLDER";
  } else if (typeof WebAssembly !== "object") {
    reason = "This browser has no WebAssembly, which computes the images (or it is turned off).";
  } else if (!("noModule" in HTMLScriptElement.prototype) || typeof OffscreenCanvas === "undefined") {
    reason = "This browser is too old for this page.";
  }
  if (!reason) return;
  document.addEventListener("DOMContentLoaded", function () {
    var box = document.getElementById("error");
    box.textContent = reason;
    box.hidden = false;
  });
  window.imagierCannotRun = true;
})();
