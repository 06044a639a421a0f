"""The embedded dataset: pictures, captions and edits made from OpenMoji's drawings."""
