"""The notebook: magics become one call. With ``display/notebook``, the only room that says IPython."""
