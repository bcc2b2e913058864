; Text by the video BIOS, with letters of our own: strings, attributes, scrolling, the cursor.
        bits 16
        org 0x7C00
start:  xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7C00
        mov ax, 0x0003
        int 0x10
        mov ax, 0x1100                  ; user font: no change of the mode
        mov bx, 0x1000                  ; 16 rows, font 0
        mov cx, 3
        mov dx, 'A'
        mov bp, glyphs
        int 0x10
        mov ax, 0x1100
        mov bx, 0x1000
        mov cx, 1
        mov dx, 0xC4
        mov bp, line
        int 0x10
        mov ax, 0x1301                  ; string, the cursor moves
        mov bx, 0x001E
        mov cx, 6
        mov dx, 0x0510                  ; row 5, column 16
        mov bp, string
        int 0x10
        mov ah, 0x02
        mov bh, 0
        mov dx, 0x0A00
        int 0x10
        mov ax, 0x09C4                  ; a line of a character and an attribute
        mov bx, 0x0003
        mov cx, 80
        int 0x10
        mov ah, 0x02
        mov dx, 0x1827                  ; bottom row
        int 0x10
        mov ax, 0x0E42                  ; teletype
        int 0x10
        mov ax, 0x0602                  ; a window moves up two rows
        mov bh, 0x4F
        mov cx, 0x0200
        mov dx, 0x0627
        int 0x10
        mov ah, 0x01                    ; a block for a cursor
        mov cx, 0x0007
        int 0x10
        mov ah, 0x02
        mov bh, 0
        mov dx, 0x0103
        int 0x10
stop:   hlt
        jmp stop
string: db "ABCCBA"
glyphs: db 0xFF,0x81,0x81,0x81,0x81,0x81,0x81,0x81,0x81,0x81,0x81,0x81,0x81,0x81,0x81,0xFF
        db 0xAA,0x55,0xAA,0x55,0xAA,0x55,0xAA,0x55,0xAA,0x55,0xAA,0x55,0xAA,0x55,0xAA,0x55
        db 0x80,0x40,0x20,0x10,0x08,0x04,0x02,0x01,0x01,0x02,0x04,0x08,0x10,0x20,0x40,0x80
line:   db 0,0,0,0,0,0,0,0xFF,0xFF,0,0,0,0,0,0,0
        times 510-($-$$) db 0
        dw 0xAA55
