"""HTML: parse, call one verb, render the page or its fragment."""
