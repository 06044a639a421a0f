"""The embedded dataset: pictures, captions and edits generated from OpenMoji's drawings."""
