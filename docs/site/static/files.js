// Pages that were opened as files may not read other pages, from which the search takes the lines around what it finds.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}
